"""The package as pip installs it: declared dependencies, and what works far from any checkout."""

import ast
import importlib.metadata
import os
import re
import signal
import subprocess
import sys
import sysconfig
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import iwae
from tests.server import Server
from tests.session import Session, apart

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's folders")


def names(requirements: list[str]) -> set[str]:
    return {canonicalize_name(Requirement(one).name) for one in requirements}


def pinned(file: str) -> dict[str, Requirement]:
    lines = (line.split("#")[0].strip() for line in (ROOT / file).read_text(encoding="utf-8").splitlines())
    return {canonicalize_name(one.name): one for one in map(Requirement, filter(None, lines))}


@pytest.mark.parametrize(
    ("file", "parts"),
    [
        ("requirements.txt", [PROJECT["dependencies"], EXTRAS["app"], EXTRAS["umap"], ["pytest"]]),
        ("requirements-extra.txt", [EXTRAS["extra"]]),
        ("requirements-loggers.txt", [EXTRAS["loggers"]]),
        ("requirements-cluster.txt", [EXTRAS["cluster"]]),
        ("requirements-dev.txt", [[one for one in EXTRAS["dev"] if not one.startswith("pytest>")]]),
    ],
)
def test_the_pinned_files_hold_the_packages_of_the_extras_in_versions_within_their_ranges(file, parts):
    pins = pinned(file)
    assert set(pins) == names([one for part in parts for one in part])
    declared = [*PROJECT["dependencies"], *(one for extra in EXTRAS.values() for one in extra)]
    ranges = {canonicalize_name(one.name): one for one in map(Requirement, declared)}
    for name, pin in pins.items():
        (version,) = [clause.version for clause in pin.specifier]
        assert version in ranges[name].specifier, f"{pin} is outside {ranges[name]}"


OWNERS = {"mlflow": "mlflow-skinny"}  # of modules called otherwise, where they are not installed


def test_every_package_that_is_imported_is_declared():
    """What iwae/ imports where it is loaded is a dependency, except of the figures and the report, which only the
    explorer uses; what it imports within a function, and what pages/ import, belongs to it or to an extra."""
    distributions = importlib.metadata.packages_distributions()
    core, app = names(PROJECT["dependencies"]), names(EXTRAS["app"])
    anything = core.union(*map(names, EXTRAS.values()))
    for path in [ROOT / "app.py", ROOT / "home.py", *(ROOT / "pages").rglob("*.py"), *(ROOT / "iwae").rglob("*.py")]:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        place = path.relative_to(ROOT).as_posix()
        if not place.startswith("iwae/"):
            allowed = core | app
        elif place.startswith("iwae/figures/") or place in ("iwae/export/report.py", "iwae/export/web_page.py"):
            allowed = core | {"plotly"}
        else:
            allowed = core
        for node in ast.walk(tree):
            modules = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level:
                modules = [node.module]
            for top in {module.split(".")[0] for module in modules} - {"iwae", "pages"} - sys.stdlib_module_names:
                owners = {canonicalize_name(owner) for owner in distributions.get(top, [OWNERS.get(top, top)])}
                assert owners & (allowed if node in tree.body else anything), f"{place} imports {top}"


def test_the_version_is_one(capsys):
    from iwae.__main__ import main

    assert main(["--version"]) == 0 and capsys.readouterr().out == f"iwae {iwae.__version__}\n"
    assert f"version: {iwae.__version__}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"\n## {iwae.__version__} " in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("words", "status", "told"),
    [
        (["--help"], 0, "--server.port 8600"),
        (["other.py"], 2, "not 'other.py'"),
        (["--server.port=8600", "8601"], 2, "not '8601'"),
        (["--server.port"], 2, "error: Option '--server.port' requires an argument."),
        (["--nonsense", "3"], 2, "error: No such option '--nonsense'."),
    ],
)
def test_the_options_of_the_app_are_those_of_streamlit(words, status, told, capsys):
    from iwae.__main__ import main

    assert main(["app", *words]) == status
    assert told in "".join(capsys.readouterr())


def test_what_misses_an_extra_says_so_in_a_sentence(tmp_path):
    program = """
import sys
sys.modules |= {"streamlit": None, "umap": None}  # as if they were not installed
import numpy as np
from iwae.__main__ import main
from iwae.analysis import umap_maps
from iwae.system import optional
try:
    settings = umap_maps.UmapSettings()
    umap_maps.find_map(settings).start(np.eye(30), np.eye(30, 2), settings)
except optional.MissingError as error:
    print(error, file=sys.stderr)
sys.exit(main(["app"]))
"""
    environment = os.environ | {"IWAE_MAPS_DIR": str(tmp_path / "maps")}
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 1 and not (tmp_path / "maps").exists()
    install = "pip install -r requirements.txt"
    assert done.stderr == f"the map needs umap: {install}\nerror: the explorer needs streamlit: {install}\n"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """Built from this checkout, without a network."""
    pytest.importorskip("hatchling", reason="requirements-dev.txt")
    folder = tmp_path_factory.mktemp("wheel")
    words = ["wheel", "--no-deps", "--no-index", "--no-build-isolation", "--wheel-dir", str(folder), str(ROOT)]
    subprocess.run([sys.executable, "-m", "pip", "-q", *words], check=True)
    (found,) = folder.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def bin_folder(wheel, tmp_path_factory) -> Path:
    """Of a virtual environment into which pip has installed the wheel. Its other packages are those of this Python,
    with which pip must find every requirement met."""
    folder = tmp_path_factory.mktemp("clean")
    venv.create(folder, symlinks=True)
    (library,) = folder.glob("lib/python*/site-packages")
    (library / "packages.pth").write_text(f"{sysconfig.get_path('purelib')}\n")
    words = ["install", "--no-index", "-c", str(ROOT / "requirements.txt"), f"{wheel}[app,umap]"]
    subprocess.run([sys.executable, "-m", "pip", "-q", "--python", str(folder / "bin/python"), *words], check=True)
    return folder / "bin"


def test_the_wheel_holds_the_explorer_two_models_and_what_was_published(wheel):
    with zipfile.ZipFile(wheel) as archive:
        files = {name for name in archive.namelist() if not name.endswith("/")}
    sources = {f"iwae/explorer/{path.relative_to(ROOT)}" for path in (ROOT / "pages").rglob("*.*") if path.is_file()}
    sources |= {str(path.relative_to(ROOT)) for path in (ROOT / "iwae").rglob("*.*") if path.is_file()}
    sources = {name for name in sources if "__pycache__" not in name}
    beside = {"app.py", "home.py", ".streamlit/config.toml", "checkpoints/umap.npz"}
    beside |= {f"checkpoints/mnist-5k-1layer-{name}.safetensors" for name in ("vae-k1", "iwae-k50")}
    info = {name for name in files if ".dist-info/" in name}
    assert files - info == sources | {f"iwae/explorer/{name}" for name in beside}
    assert {"iwae/results/published.csv", "iwae/py.typed"} <= files
    assert wheel.stat().st_size < 4e6


@LINUX
def test_far_from_a_checkout_it_trains_makes_the_table_and_shows_the_explorer(bin_folder, tmp_path):
    """Runs go to the user's data folder; where packages are installed nothing is written."""
    home, folder = tmp_path / "home", tmp_path / "elsewhere"
    home.mkdir()
    folder.mkdir()
    environment = {"PATH": os.environ["PATH"], "HOME": str(home), "OMP_NUM_THREADS": "1"}
    installed = sorted(path for path in bin_folder.parent.rglob("*") if "__pycache__" not in path.parts)

    def run(*words: str) -> str:
        done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    small = "--dataset digits --model 8:2 --objective iwae --k 2 --epochs 1"
    said = run(str(bin_folder / "iwae"), "train", *small.split())
    assert "test NLL" in said
    (trained,) = (home / ".local/share/iwae/runs").glob("*/checkpoint.safetensors")
    table = run(str(bin_folder / "iwae"), "table")
    assert re.search(r"^mnist-5k-1layer-iwae-k50 ", table, re.M) and trained.parent.name in table
    code = "import iwae; from iwae import load, evaluate, posterior; print(iwae.__file__, load.__name__)"
    assert f"{bin_folder.parent}/lib" in run(str(bin_folder / "python"), "-c", code)

    refused = subprocess.run(
        [bin_folder / "iwae", "table", "--readme"], env=environment, capture_output=True, text=True
    )
    assert refused.returncode == 2 and "--readme writes into a checkout" in refused.stderr

    server = Server(folder / "none.py", home, [str(bin_folder / "iwae"), "app"], folder)
    try:
        apart(visit(server.url))
        server.process.send_signal(signal.SIGINT)
        assert server.process.wait(timeout=60) == 0
        said = server.log.read_text()
        assert f"http://127.0.0.1:{server.url.rpartition(':')[2]}" in said and "Traceback" not in said
    finally:
        server.stop()
    assert sorted(path for path in bin_folder.parent.rglob("*") if "__pycache__" not in path.parts) == installed


async def visit(url: str) -> None:
    """A page, which shows the models of the wheel, and links to all others."""
    session = await Session.open(url, "Results")
    assert not session.problems and "Measured against published" in [heading.body for heading in session.of("heading")]
    assert len(list(session.of("page_link", root=1))) == len(list((ROOT / "pages").glob("[0-9]*.py"))) + 1
    chosen = [session.widget("selectbox", f"Model {which}").raw_value for which in "AB"]
    assert all("mnist-5k" in label for label in chosen)
    await session.close()
