"""The command line, on the embedded digits: what it prints, what it leaves, and how it refuses."""

import dataclasses
import json
import os
import re
import signal
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest
import torch

from iwae import catalog, checkpoints
from iwae.__main__ import main
from iwae.cli.card import card_text
from iwae.data import datasets
from iwae.data.sources import SOURCES
from iwae.evaluation import metrics
from iwae.runs import store, worker

PROJECT = Path(__file__).parent.parent
COMMAND = [sys.executable, "-m", "iwae"]
SMALL = ["--dataset", "digits", "--model", "16:4", "--k", "5", "--epochs", "6", "--log-every", "5"]


@pytest.fixture(autouse=True)
def _alone(own_runs, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A checkpoint that `train --out` has written, and the run it came from."""
    folder = tmp_path_factory.mktemp("trained")
    model = folder / "models" / "small.safetensors"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("IWAE_RUNS_DIR", str(folder / "runs"))
        assert main(["train", *SMALL, "--seed", "3", "--out", str(model)]) == 0
        return model, store.list_runs()[0]


def refused(capsys, status: int, *words: str) -> str:
    """The one line on stderr of a command that must end with this exit status and print nothing else."""
    capsys.readouterr()
    assert main(words) == status
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("error: ") and err.count("\n") == 1 and err.endswith("\n")
    assert not re.search("[│╭╰─]|  ", err)
    return err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("nonsense", "there are app, train, sweep, refit, evaluate, encode, table, findings, export, card, data"),
        ("--nonsense", "there are app, train, sweep, refit, evaluate, encode, table, findings, export, card, data"),
        ("train --dataset nonsense", "there are mnist-5k, digits, mnist, mnist-fixed"),
        ("train --objective nonsense", "there are vae, iwae, power-mean"),
        ("train --gradient nonsense", "there are exact, stl, dreg, piwae"),
        ("train --schedule nonsense", "there are fast, paper, cosine, constant"),
        ("train --model nonsense", "one of 1layer, 2layer, 2d, conv nor sizes like"),
        ("train --objective ciwae", "needs beta"),
        ("train --beta 0.5", "takes no parameters, not beta"),
        ("train --objective median --gradient dreg", "second derivative"),
        ("refit nowhere.safetensors --out b.safetensors", "there is no file nowhere.safetensors"),
        ("refit README.md --out b.pt", "--out must name a .safetensors file, not b.pt"),
        ("refit README.md --out b.safetensors --images 0", "images must be a whole number of at least 1, not 0"),
        ("train --k x", "--k: invalid literal for int() with base 10: 'x'"),
        ("train --k 0", "k must be a whole number of at least 1, not 0"),
        ("train --k -3", "k must be a whole number of at least 1, not -3"),
        ("train --dataset path:", "path: must be followed by a file or folder of images"),
        ("train --minutes soon", "--minutes: no type matching FLOAT could be instantiated from ['soon']"),
        ("train --minutes 0", "minutes must be above 0, not 0"),
        ("train --learning-rate nan", "learning rate must be above 0, not nan"),
        ("train --k", "Missing value for argument '--k'"),
        ("train --epochss 3", "Unrecognized options: --epochss, 3; Perhaps you meant: --epochs INT"),
        ("train extra", "Unrecognized options: extra"),
        ("train --seed 99999999999", "seed must not be above 4,294,967,295, not 99999999999"),
        ("train --device quantum", "Expected one of ('auto', 'cpu', 'cuda', 'mps')"),
        ("train --start nowhere.safetensors", "--start: there is no file nowhere.safetensors"),
        ("train --dataset usps --start MODEL", "is for images of 28×28 pixels; those of usps have 16×16"),
        ("train --out model.pt", "--out must name a .safetensors file, not model.pt"),
        ("train --resume some-run --k 3", "only --out may be given with it"),
        ("train --resume some-run --k 50", "only --out may be given with it"),  # the default, not the run's
        ("train --resume some-run --log tensorboard", "only --out may be given with it"),
        (
            "train --device cpu --precision tf32",
            "--precision: matrix products in tf32 need the device cuda; on cpu they are float32",
        ),
        ("train --log tensorboard --log-dir MODEL", "--log-dir must name a folder, not the file"),
        ("train --log-dir logs", "--log-dir needs --log with at least one of tensorboard, wandb, mlflow"),
        ("train --log csv", "Expected one of ('tensorboard', 'wandb', 'mlflow')"),
        (
            "train --tensorboard logs --log wandb",
            "--tensorboard DIR is the old name of --log tensorboard --log-dir DIR",
        ),
        ("evaluate", "Missing from python -m iwae evaluate: CHECKPOINT"),
        ("evaluate nowhere.safetensors", "there is no file nowhere.safetensors"),
        ("evaluate MODEL --samples 0", "--samples must be at least 1, not 0"),
        ("evaluate MODEL --samples 99999999999999999999", "--samples must not be above 1,000,000, not 99,999,999,999,"),
        ("evaluate MODEL --samples many", "'many'"),
        ("evaluate MODEL --images 0", "--images must lie between 1 and 300, all of digits, not 0"),
        ("evaluate MODEL --images 301", "--images must lie between 1 and 300, all of digits, not 301"),
        ("evaluate MODEL --seed -1", "--seed must lie between 0 and 4294967295, not -1"),
        ("evaluate MODEL --dataset nonsense", "there are mnist-5k, digits, mnist, mnist-fixed"),
        ("evaluate MODEL --dataset mnist --save", "model's own data set, digits, not on mnist"),
        ("evaluate MODEL --chains 8", "--chains needs --ais"),
        ("evaluate MODEL --quantiles --simulated 0", "--simulated needs --ais"),
        ("evaluate MODEL MODEL", "Unrecognized options"),
        ("table --images 5", "--images needs --compare"),
        ("table --seed 5", "--seed needs --compare or --verify"),
        ("table --verify 20 --csv t.csv", "--csv does not go with --verify"),
        ("table --compare a b --json t.json", "--json does not go with --compare"),
        ("table --compare a b --verify 20", "--verify does not go with --compare"),
        ("table --csv t.csv --json ./t.csv", "--csv and --json name the same file, t.csv"),
        ("export MODEL", "name a folder with --out, a model on the Hub with --push, or both"),
        ("export MODEL --out MODEL", "--out must name a new or an empty folder"),
        ("export MODEL --out new --format pickle", "pickle"),
        ("export nowhere.safetensors --out new", "there is no file nowhere.safetensors"),
        ("card", "name at least one checkpoint"),
        ("card nowhere.safetensors", "there is no file nowhere.safetensors"),
        ("card MODEL MODEL --out README.md", "--out is for the card of one checkpoint"),
        ("data", "Expected one of {list, download, verify, add, remove}"),
        ("data nonsense", "Available subcommands: list, download, verify, add, remove"),
        ("data download", "Missing from python -m iwae data download: NAME"),
        ("data download nonsense", "there are mnist-5k, digits, mnist, mnist-fixed"),
        ("data verify nonsense", "there are mnist-5k, digits, mnist, mnist-fixed"),
        ("runs", "Expected one of {list, show, stop, resume, delete}"),
        ("runs list extra", "Unrecognized options: extra"),
        ("runs stop", "Missing from python -m iwae runs stop: NAME"),
    ],
)
def test_wrong_arguments_are_one_line_and_exit_status_2(words, told, trained, capsys):
    words = [str(trained[0]) if word == "MODEL" else word for word in words.split()]
    assert told in refused(capsys, 2, *words)
    assert store.list_runs() == []


@pytest.mark.skipif(torch.cuda.is_available(), reason="cuda is there")
def test_an_absent_device_is_refused(trained, capsys):
    for words in (["train"], ["evaluate", str(trained[0])]):
        assert "has cpu" in refused(capsys, 2, *words, "--device", "cuda")


def test_an_empty_name_of_a_run_is_no_new_run(capsys):
    assert "there is no run ''" in refused(capsys, 1, "train", "--resume", "")


def test_ctrl_c_is_heard_while_torch_imports_numpy():
    """From C++, where an interruption is lost: the command went on."""
    script = """
import sys
class Interrupting:
    def find_spec(self, name, path=None, target=None):
        if name == "numpy.lib._function_base_impl":
            raise KeyboardInterrupt
sys.meta_path.insert(0, Interrupting())
from iwae.__main__ import main
sys.exit(main(["data", "list"]))
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=PROJECT, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "error: interrupted\n")


def test_other_failures_are_one_line_and_exit_status_1(trained, tmp_path, capsys, monkeypatch):
    (tmp_path / "text.safetensors").write_text("no model")
    assert "not a safetensors file" in refused(capsys, 1, "evaluate", str(tmp_path / "text.safetensors"))
    for command in ("show", "stop", "resume", "delete"):
        assert "no run 'nothing'" in refused(capsys, 1, "runs", command, "nothing")
    assert "no run 'nothing'" in refused(capsys, 1, "train", "--resume", "nothing")
    assert main(["train", *SMALL, "--learning-rate", "1e6"]) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: ") and "no longer finite at step" in error
    assert store.list_runs()[0].status().phase == "failed"
    monkeypatch.setenv("IWAE_DATA_DIR", str(tmp_path))
    monkeypatch.setattr("iwae.data.downloads.DataFile.fetch", _unreachable)
    assert "unreachable; put the file there by hand" in refused(capsys, 1, "train", "--dataset", "mnist")


def _unreachable(*_):
    raise datasets.DataError("every mirror is unreachable")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("", ["train", "evaluate CHECKPOINT", "table", "data verify [NAME]", "runs resume NAME", "Examples:"]),
        ("--help", ["usage: python -m iwae COMMAND"]),
        ("train --help", ["--objective", "draws from q(h|x) for each image (default: 50)", "--resume", "Examples:"]),
        ("sweep --help", ["GRID", "--ray", "--gpus-per-cell", "--dry-run", "Examples:"]),
        ("evaluate --help", ["CHECKPOINT", "--samples", "(default: 5000)", "--json", "Examples:"]),
        ("table --help", ["--verify", "--compare", "--markdown", "--readme", "Examples:"]),
        ("export --help", ["CHECKPOINT", "--out", "--format", "README.md", "Examples:"]),
        ("card --help", ["CHECKPOINTS", "--beside", "Hugging Face", "Examples:"]),
        ("data --help", ["list", "download", "verify", "IWAE_DATA_DIR", "Examples:"]),
        ("data verify --help", ["NAME", "checksums"]),
        ("runs --help", ["stop", "resume", "IWAE_RUNS_DIR", "Examples:"]),
        ("runs stop --help", ["NAME", "Ask a run to save and stop"]),
    ],
)
def test_help_at_every_level(words, told, capsys):
    assert main(words.split()) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert [part for part in told if part not in " ".join(out.replace("│", "").split())] == []


def test_examples_in_help_are_real_commands(capsys):
    """Every option that the examples use exists: they fail for want of a file or a run at most."""
    main([])
    main(["train", "--help"])
    for command in ("sweep", "evaluate", "table", "export", "card"):
        main([command, "--help"])
    examples = re.findall(
        r"^  python -m iwae ((?:train|sweep|evaluate|table|export|card) .+)",
        capsys.readouterr().out,
        flags=re.MULTILINE,
    )
    assert len(examples) >= 17
    for example in examples:
        words = example.split()
        module = sys.modules[f"iwae.cli.{words[0]}"]
        module.parse(words[1:])


def test_top_level_help_does_not_wait_for_torch():
    script = "import sys; from iwae.__main__ import main; main(['--help']); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], cwd=PROJECT, capture_output=True).returncode == 0


def test_train_leaves_the_model_and_a_finished_run(trained):
    model, run = trained
    assert run.status().phase == "finished" and run.config.seed == 3
    assert model.read_bytes() == run.checkpoint.read_bytes()
    assert str(checkpoints.read_card(model).model) == "16:4"


def test_evaluate_prints_what_evaluation_measures(trained, capsys):
    path = str(trained[0])
    assert main(["evaluate", path, "--samples", "60", "--seed", "7", "--json"]) == 0
    out, err = capsys.readouterr()
    assert err == "" and out.count("\n") == 1
    found = json.loads(out)
    model, _ = checkpoints.load(trained[0])
    x = datasets.load("digits").binary("test")
    summary = metrics.evaluate(model, x, samples=60, seed=7).summary()
    assert found == {"checkpoint": path, "dataset": "digits"} | summary
    promised = "nll nll_se elbo reconstruction kl_prior kl_posterior ess active_units pca_active_units pruned_nll"
    assert set(promised.split()) | {"images", "samples", "seed"} <= set(found)
    assert (found["images"], found["samples"], found["seed"]) == (300, 60, 7)

    assert main(["evaluate", path, "--samples", "60", "--seed", "7"]) == 0
    out = capsys.readouterr().out
    assert f"{summary['nll']:.3f} ± {summary['nll_se']:.3f} nats" in out
    assert "300 test images of digits, 60 draws each, seed 7; mean ± s.e. over images" in out
    assert f"{summary['active_units'][0]} of 4" in out


def test_one_image_goes_all_the_way_without_a_standard_error(tmp_path, capsys, monkeypatch):
    """Trained with one validation image, measured on one test image: on the screen, in the card, in the tables."""
    model = tmp_path / "checkpoints" / "one.safetensors"
    words = ["--dataset", "digits", "--model", "16:4", "--k", "1", "--objective", "vae", "--epochs", "2"]
    assert main(["train", *words, "--valid-images", "1",
                 "--out", str(model)]) == 0  # fmt: skip
    assert main(["evaluate", str(model), "--samples", "20", "--images", "1", "--save"]) == 0
    out = capsys.readouterr().out
    summary = checkpoints.read_card(model).metrics
    assert f"{summary['nll']:.3f} nats\n" in out and "±" not in out.split("NLL, −L_20")[1]
    assert "1 test image of digits, 20 draws each, seed 0; of one image there is no standard error" in out
    assert out.count("not counted: a variance over images needs at least 2") == 2
    assert "without the inactive units" not in out
    text = card_text(model)
    assert f"| NLL | {summary['nll']:.2f} |" in text and "| active units | not counted: a variance over" in text
    entry = catalog.Entry("one", model, checkpoints.read_card(model))
    assert entry.nll == f"NLL {summary['nll']:.2f} nats"
    monkeypatch.setattr(catalog, "SHIPPED", model.parent)
    capsys.readouterr()
    table = ["table", "--models", "one", "--markdown", str(tmp_path / "table.md")]
    assert main([*table, "--csv", str(tmp_path / "table.csv"), "--json", str(tmp_path / "table.json")]) == 0
    assert f"{summary['nll']:.2f}  " in capsys.readouterr().out
    (row,) = json.loads((tmp_path / "table.json").read_text())["rows"]
    assert row["nll"] == summary["nll"] and row["nll_se"] is None and row["active_units"] == ""
    assert main(["table", "--models", "one", "--verify", "5"]) == 0
    assert "measured on one image" in capsys.readouterr().out
    refused(capsys, 2, "evaluate", str(model), "--images", "0")


def test_evaluate_says_that_it_has_other_images_than_the_model_was_trained_on(trained, tmp_path, capsys):
    model, card = checkpoints.load(trained[0])
    progress = card.progress | {"data": card.progress["data"] | {"sha256": "0" * 64}}
    path = tmp_path / "other.safetensors"
    checkpoints.save(path, model, dataclasses.replace(card, progress=progress))
    for one, told in ((trained[0], ""), (path, "note: the images of digits here are not those that this model")):
        assert main(["evaluate", str(one), "--samples", "2", "--images", "2"]) == 0
        assert capsys.readouterr().err[: len(told) or None] == told


def test_evaluate_takes_a_random_part_of_the_images(trained, capsys):
    results = {}
    for seed in ("1", "2"):
        words = ["evaluate", str(trained[0]), "--samples", "20", "--images", "40", "--seed", seed, "--json"]
        assert main(words) == 0
        results[seed] = json.loads(capsys.readouterr().out)
        assert results[seed]["images"] == 40
    model, _ = checkpoints.load(trained[0])
    x = datasets.load("digits").binary("test")
    chosen = x[torch.randperm(300, generator=torch.Generator().manual_seed(1))[:40]]
    assert results["1"]["nll"] == metrics.evaluate(model, chosen, samples=20, seed=1).summary()["nll"]
    leading = metrics.evaluate(model, x[:40], samples=20, seed=1).summary()["nll"]
    assert len({results["1"]["nll"], results["2"]["nll"], leading}) == 3


def test_evaluate_saves_into_the_card(trained, tmp_path, capsys):
    path = tmp_path / "copy.safetensors"
    path.write_bytes(trained[0].read_bytes())
    assert main(["evaluate", str(path), "--samples", "30", "--json"]) == 0
    assert checkpoints.read_card(path) == checkpoints.read_card(trained[0])  # only when asked
    assert main(["evaluate", str(path), "--samples", "30", "--json", "--save"]) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    before, after = checkpoints.load(trained[0]), checkpoints.load(path)
    assert after[1].metrics == {name: found[name] for name in found if name not in ("checkpoint", "dataset")}
    assert after[1].metrics != before[1].metrics and after[1].training == before[1].training
    for name, weight in before[0].state_dict().items():
        assert torch.equal(weight, after[0].state_dict()[name])


def test_evaluate_can_halve_a_file_and_measures_what_it_keeps(trained, tmp_path, capsys):
    path = tmp_path / "copy.safetensors"
    path.write_bytes(trained[0].read_bytes())
    assert main(["evaluate", str(path), "--samples", "30", "--half", "--json", "--save"]) == 0
    assert main(["evaluate", str(path), "--samples", "30", "--json"]) == 0
    kept, again = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert kept == again and kept["nll"] == checkpoints.read_card(path).metrics["nll"]
    assert path.stat().st_size < 0.6 * trained[0].stat().st_size
    assert "rounded to float16" in card_text(path)


def test_data_commands(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("IWAE_DATA_DIR", str(tmp_path))
    assert main(["data", "list"]) == 0
    out = capsys.readouterr().out
    assert str(tmp_path) in out
    lines = out.splitlines()[1:]
    states = {line.split()[0]: line.split()[1] for line in lines[::2]}
    assert [line.strip() for line in lines[1::2]] == [f"licence: {source.licence}" for source in SOURCES.values()]
    assert states == {name: "here" if name in ("mnist-5k", "digits") else "missing" for name in SOURCES}
    assert main(["data", "verify"]) == 0
    out = capsys.readouterr().out
    assert "digits needs no file" in " ".join(out.split()) and " missing " in out
    (tmp_path / "mnist").mkdir()
    (tmp_path / "mnist" / "train-images-idx3-ubyte.gz").write_bytes(b"something else")
    assert main(["data", "verify", "mnist"]) == 1
    out, err = capsys.readouterr()
    assert "mnist/train-images-idx3-ubyte.gz" in out and err.count("\n") == 1
    assert "train-images-idx3-ubyte.gz is damaged" in err and "data download NAME" in err
    assert main(["data", "download", "digits"]) == 0


def test_runs_commands(trained, capsys):
    assert main(["runs", "list"]) == 0
    assert "no runs in" in capsys.readouterr().out
    run = store.create(trained[1].config)
    run.set_status("stopped")
    broken = store.create(trained[1].config)
    broken.set_status("stopped")
    (broken.folder / "config.json").write_text("[]")
    (broken.folder / "metrics.jsonl").write_text("{}\n")
    assert main(["runs", "list"]) == 0
    out = capsys.readouterr().out.splitlines()
    assert len(out) == 2 and any(run.name in line and "stopped at 0%" in line for line in out)
    assert any(broken.name in line and "cannot be read" in line for line in out)
    assert worker.main(run.folder) == 0  # the process of a run, in this one
    out = capsys.readouterr().out.splitlines()
    assert re.fullmatch(
        r"step 78 of 78  epoch 6\.00  bound -\d+\.\d{3}  validation -\d+\.\d{3} nats  [\d,]+ images/s", out[-2]
    )
    assert out[-1] == "finished"
    assert main(["runs", "show", run.name]) == 0
    out = capsys.readouterr().out
    nll = checkpoints.read_card(run.checkpoint).metrics["nll"]
    assert "finished" in out and "16:4" in out and f"test NLL {nll:.2f} ±" in out and str(run.checkpoint) in out
    assert "is finished" in refused(capsys, 1, "runs", "resume", run.name)
    assert "is not running" in refused(capsys, 1, "runs", "stop", run.name)
    assert main(["runs", "delete", run.name]) == 0 and not run.folder.exists()
    assert "its config.json cannot be read" in refused(capsys, 1, "runs", "show", broken.name)
    assert main(["runs", "delete", broken.name]) == 0 and store.list_runs() == []


def test_ctrl_c_saves_and_the_run_goes_on():
    words = [*COMMAND, "train", *SMALL, "--seed", "3"]
    process = subprocess.Popen(words, cwd=PROJECT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    first = process.stdout.readline()
    assert first.startswith("step 5 of 78")
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 130
    run = store.list_runs()[0]
    assert run.status().phase == "stopped" and "Traceback" not in err
    assert f"resume with: python -m iwae train --resume {run.name}\n" in err
    assert main(["train", "--resume", run.name]) == 0
    assert run.status().phase == "finished" and run.records()[-1].step == 78


def test_resume_in_the_background_and_a_second_worker(trained, capsys):
    """The second says so, at once, and leaves the first alone."""
    run = store.create(dataclasses.replace(trained[1].config, epochs=10_000))
    run.set_status("stopped")
    assert main(["runs", "resume", run.name]) == 0
    while not run.records():
        assert run.status().alive
        time.sleep(0.05)
    capsys.readouterr()
    assert worker.main(run.folder) == 1 and "already running" in capsys.readouterr().err
    assert "already running" in refused(capsys, 1, "train", "--resume", run.name)
    assert "stop it first" in refused(capsys, 1, "runs", "delete", run.name)
    assert main(["runs", "list"]) == 0
    assert re.search(r"running at \d%, \d.* left, bound -\d+\.\d\d nats", capsys.readouterr().out)
    assert main(["runs", "stop", run.name]) == 0
    while run.status().alive:
        time.sleep(0.05)
    assert run.status().phase == "stopped"


def test_a_terminal_gets_a_progress_bar():
    """Written through a pseudo-terminal: bars on stderr, the result alone on stdout."""
    master, slave = os.openpty()
    termios.tcsetwinsize(slave, (24, 120))
    words = [*COMMAND, "train", *SMALL]
    process = subprocess.Popen(words, cwd=PROJECT, stdout=subprocess.PIPE, stderr=slave, text=True)
    os.close(slave)
    shown = b""
    while True:
        try:
            shown += os.read(master, 65536)
        except OSError:  # how Linux says that the other end is closed
            break
    out, _ = process.communicate(timeout=300)
    os.close(master)
    assert process.returncode == 0
    assert [line.split()[0] for line in out.splitlines()] == ["model:", "test"]
    bar = shown.decode()
    line = r" \d+%\|.*\| \d\d:\d\d left, bound -\d+\.\d\d, validation -\d+\.\d\d nats, [\d,]+ images/s"
    assert re.search(line, bar) and "100%|" in bar and bar.rstrip().endswith("training is done, measuring the test NLL")


@pytest.mark.parametrize("words", [["table", "--help"], ["table", "--wide", "--all"]])
def test_a_reader_that_has_seen_enough_is_no_error(words):
    """As with `| head -1`: the pipe is closed after the first line."""
    command = [sys.executable, "-m", "iwae", *words]
    with subprocess.Popen(
        command, cwd=Path(__file__).parents[1], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode in (0, 141)
