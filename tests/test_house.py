"""The rules of the house that a reader could forget: one direction of imports, thin pages, true documents."""

import ast
import re
from pathlib import Path

import pytest

from iwae import catalog, checkpoints

ROOT = Path(__file__).parents[1]
# Each may import those before it, as docs/design.md says.
ORDER = """
    files streams processes untrusted paths cores launcher memory threads ahead products tanh layers inputs niceness
    optional turns bounds pareto bernoulli model matlab formats figures figures_latent figures_bounds
    figures_training decoding uploads sheet ink digits downloads packed sources datasets gradients graphs programs
    health steps checkpoints costs draws evaluation latent maps units reconstruction figures_units posterior
    estimates ais prior plane tempering occlusion config step_memory sleep training tensorboard parallel snapshots
    runs worker overview lookback cells sweep pool cluster catalog published commands report results grid comparison
    tables documents export modelcard cli __main__ background
""".split()  # noqa: SIM905


def imports(path: Path) -> set[str]:
    """Modules that a file imports, by full name."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


@pytest.mark.parametrize("path", sorted((ROOT / "iwae").rglob("*.py")), ids=lambda path: path.stem)
def test_the_engine_knows_no_app_and_imports_run_one_way(path):
    found = imports(path)
    assert not any(name.split(".")[0] in ("streamlit", "pages", "benchmarks") for name in found)
    layer = path.relative_to(ROOT / "iwae").parts[0].removesuffix(".py")
    if layer == "__init__":
        return
    others = {name.split(".")[1] for name in found if name.startswith("iwae.")} & set(ORDER) - {layer}
    assert all(ORDER.index(other) < ORDER.index(layer) for other in others), others


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
    """Same architecture, data, seed and passes, a VAE with k = 1 and an IWAE with k = 50."""
    found, _ = catalog.entries()
    vae, iwae = (found[key] for key in catalog.DEFAULT_PAIR)
    assert (vae.config.objective, vae.config.k) == ("vae", 1) and (
        iwae.training.config.objective,
        iwae.training.config.k,
    ) == ("iwae", 50)
    for name in ("dataset", "model", "seed", "passes", "batch_size"):
        assert getattr(vae.config, name) == getattr(iwae.training.config, name)
    assert vae.card.metrics["nll"] < 90 and iwae.card.metrics["nll"] < 88.5


def test_files_named_in_the_documents_exist():
    for document in (ROOT / "README.md", *(ROOT / "docs").glob("*.md"), catalog.SHIPPED / "README.md"):
        for target in re.findall(r"\]\(([^)#:]+)\)", document.read_text()):
            assert (document.parent / target).exists(), f"{document.name}: {target}"
