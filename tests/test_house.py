"""The rules of the house that a reader could forget: one direction of imports, thin pages, true documents."""

import ast
import re
import subprocess
from pathlib import Path

from iwae import catalog, checkpoints

ROOT = Path(__file__).parents[1]


def imports(path: Path) -> set[str]:
    """Modules that a file imports, by full name."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def test_folders_are_small_and_say_what_they_are():
    """Import-linter's contracts in pyproject.toml hold the direction of imports: ``make lint``."""
    common = ROOT / "pages" / "common"
    for folder in (
        ROOT / "iwae",
        common,
        *(path.parent for top in (ROOT / "iwae", common) for path in top.glob("*/__init__.py")),
    ):
        assert len(list(folder.glob("[!_]*.py"))) <= 14, folder.name
        if folder.name != "iwae":
            assert ast.get_docstring(ast.parse((folder / "__init__.py").read_text(encoding="utf-8"))), folder.name


def test_pages_share_what_two_use_and_no_more():
    """A page's sections lie in its own folder, which no other page imports; what lies in common/ two pages use."""
    pages = ROOT / "pages"
    used: dict[str, set[str]] = {}
    for path in (ROOT / "home.py", *pages.rglob("*.py")):
        inside = path.is_relative_to(pages) and path.parent != pages
        owner = path.relative_to(pages).parts[0] if inside else path.stem
        for name in imports(path):
            used.setdefault(name, set()).add(owner)
    for path in pages.glob("*/**/*.py"):
        parts = path.relative_to(ROOT).with_suffix("").parts
        folder, module = parts[1], ".".join(parts)
        users = used.get(module, set()) - {folder}
        if path.stem == "__init__":
            continue
        if folder in ("common", "frame"):
            assert len(users) > 1 or "common" in used.get(module, set()), f"{module} is used by {users}"
        else:
            assert len(users) <= 1, f"{module} is used by {users}"


def test_torch_is_imported_without_the_garbage_collector():
    """So does ``pages.common``, which a page must import before anything of the package: 0.3 s of the first page."""
    for page in (ROOT / "home.py", *(ROOT / "pages").glob("[0-9]*.py")):
        lines = page.read_text().splitlines()
        ours = [line for line in lines if re.match(r"(from|import) (iwae|pages(?!.frame))", line)]
        assert ours[0].split()[1].startswith("pages.common"), page.name


def test_what_stands_around_a_page_needs_streamlit_alone():
    """It is shown while the rest is imported."""
    for path in (ROOT / "pages" / "frame").glob("*.py"):
        assert not [name for name in imports(path) if re.match(r"(iwae|pages(?!.frame)|torch|numpy|pandas)\b", name)]


def test_pages_are_thin():
    for page in (ROOT / "pages").glob("[0-9]*.py"):
        assert len(page.read_text().splitlines()) <= 80, page.name


def test_every_shipped_model_is_usable_and_in_the_readme():
    """The table in checkpoints/README.md has each model's NLL and standard error as its card has."""
    cards, refused = checkpoints.find(catalog.SHIPPED)
    assert cards and not refused
    readme = (catalog.SHIPPED / "README.md").read_text()
    for name, card in cards.items():
        checkpoints.load(catalog.SHIPPED / name)
        row = next(line for line in readme.splitlines() if f"`{name}`" in line)
        assert f"{card.metrics['nll']:.2f} ± {card.metrics['nll_se']:.2f}" in row
        assert f"seed {card.training['seed']}" in row


def test_the_default_pair_is_comparable():
    """Same architecture, data, seed and epochs, a VAE with k = 1 and an IWAE with k = 50."""
    found, _ = catalog.entries()
    vae, iwae = (found[key] for key in catalog.DEFAULT_PAIR)
    assert (vae.config.objective, vae.config.k) == ("vae", 1) and (
        iwae.config.objective,
        iwae.config.k,
    ) == ("iwae", 50)
    for name in ("dataset", "model", "seed", "epochs", "batch_size"):
        assert getattr(vae.config, name) == getattr(iwae.config, name)
    assert vae.card.metrics["nll"] < 90 and iwae.card.metrics["nll"] < 88.5


def test_files_named_in_the_documents_exist():
    for document in (ROOT / "README.md", *(ROOT / "docs").glob("*.md"), catalog.SHIPPED / "README.md"):
        for target in re.findall(r"\]\(([^)#:]+)\)", document.read_text()):
            assert (document.parent / target).exists(), f"{document.name}: {target}"


def test_the_readme_is_one_screen_and_the_design_ten_minutes():
    for name, most in (("README.md", 700), ("docs/design.md", 1200)):
        assert len((ROOT / name).read_text(encoding="utf-8").split()) <= most, name


def test_the_workflow_names_stages_that_there_are():
    """Of .ci/run, which refuses any other before it begins."""
    workflow = (ROOT / ".github/workflows/checks.yml").read_text(encoding="utf-8")
    calls = re.findall(r"run: bash \.ci/run ?(.*)", workflow)
    done = subprocess.run(["bash", str(ROOT / ".ci/run"), "nonsense"], capture_output=True, text=True)
    stages = re.findall(r"\w+", done.stderr.partition("there are")[2])
    assert done.returncode == 2 and calls and all(set(call.split()) <= set(stages) for call in calls)


DIALECT = (  # phrases that a reader of PyTorch's documentation would stumble over, and what to write instead
    r"\bin the place of\b",  # instead of
    r"\bgoes on (from|by|with its)\b",  # continues, resumes
    r"\bof one's own\b",  # your
    r"\bwithout a word\b",  # silently
    r"\bis at work\b",  # is running
    r"\bgive_way\b|\blook_again\b|\bkeeper\b|\bcourier\b|\balbum\b|\bstanding\b",  # names that are gone
    r"(?<![\w-])--(passes|products)\b(?!\W*$)",  # --epochs, --precision
)


def test_no_dialect():
    """In the package, the pages and the documents; tests/test_old_names.py holds the old options."""
    found = []
    for path in (*(ROOT / "iwae").rglob("*.py"), *(ROOT / "pages").rglob("*.py"), *(ROOT / "docs").glob("*.md")):
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            found += [f"{path.name}:{number}: {line.strip()}" for phrase in DIALECT if re.search(phrase, line)]
    assert not found, "\n".join(found)


def test_a_class_name_has_one_meaning():
    found: dict[str, list[str]] = {}
    for path in (*(ROOT / "iwae").rglob("*.py"), *(ROOT / "pages").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                found.setdefault(node.name, []).append(path.relative_to(ROOT).as_posix())
    assert {name: paths for name, paths in found.items() if len(paths) > 1} == {}
