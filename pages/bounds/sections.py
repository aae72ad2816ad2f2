"""Sections of the page of bounds: log-weights, the table of bounds, one step, and the exact posterior in the plane."""

import inspect
from collections.abc import Sequence

import numpy as np
import streamlit as st
import torch

from iwae.bounds import OBJECTIVES, Bound, factorings
from iwae.figures.base import Line
from iwae.figures.bounds import (
    SHARES,
    BoundEstimates,
    PosteriorRegions,
    bounds_with_errors,
    posterior_plane,
    weight_histograms,
)
from iwae.inference.estimates import estimate, histograms, step
from iwae.inference.exact_posterior import Plane, plane, radius
from iwae.inference.posterior import Posterior
from iwae.model import Model
from pages.common import image_rows, reading
from pages.common.evidence import nats, one_line
from pages.common.figure_card import data_table, escape_markdown, figure
from pages.common.image_rows import percent
from pages.common.models.model_picker import CHOOSE_PLANE, offer_plane
from pages.common.number_field import whole_number
from pages.common.sections import beside
from pages.common.server import cache
from pages.common.sidebar import View

SHOWN = 10  # draws of a step that are decoded
RESAMPLED = 2000  # draws from q chosen by weight, in the plane


def weights_figure(view: View, drawn: Sequence[Posterior]) -> None:
    """Histograms of the log-weights of A and B."""
    st.write("A weight says how well a draw from q explains the digit, against how likely q was to draw it.")
    found = histograms(drawn)
    names = [f"{name} · {entry.short}" for name, entry in view.pair]
    second = [False, view.a.kind == view.b.kind]
    draws, weights = (
        [
            Line(name, entry.kind, part.centres, getattr(part, what), dashed)
            for name, (_, entry), part, dashed in zip(names, view.pair, found, second, strict=True)
        ]
        for what in ("draws", "weight")
    )
    caption = "Filled: where the log-weights of the draws lie. Line: where their importance weight lies. " + " ".join(
        f"{name}: mean {nats(part.elbo)} (the ELBO), standard deviation {part.log_w.std().item():.2f}, "
        f"log p̂(x), dotted: {one_line(part)}."
        for name, part in zip("AB", drawn, strict=True)
    )
    numbers = {"log w, nats": found[0].centres}
    for name, part in zip("AB", found, strict=True):
        numbers |= {f"{name}: share of draws": part.draws, f"{name}: share of weight": part.weight}
    half = [part.carrying(0.5) for part in drawn]
    takeaway = f"Half of the weight lies on {half[0]:,} of {drawn[0].samples:,} draws under A, on {half[1]:,} under B."
    shown = weight_histograms(draws, weights, [part.log_p for part in drawn])
    figure(shown, "bounds.weights", caption, numbers, takeaway)
    reading.glossary("nats", "importance weight", "ELBO", "standard error")
    if not reading.simple():
        with st.expander("The formula"):
            st.latex(r"\log w = \log p(x, h) - \log q(h\,|\,x),\qquad h \sim q(h\,|\,x)")
            st.write("If q were the true posterior, every weight would be p(x): the histogram would be a single bar.")


def every_bound(view: View, drawn: Sequence[Posterior], k: int) -> None:
    """Each bound with controls for its parameters, and the source of one of them."""
    st.write(
        "Each bound turns k log-weights into one number for log p(x). They differ in how they treat unequal weights."
    )
    all_bounds(view, drawn, _pick_bounds(k), k)
    if reading.simple():
        return
    row = OBJECTIVES[_pick_objective("Its source is shown here, and the section of one step follows it.")]
    # the space: KaTeX lets the last letter hang over, which would be a region to scroll
    st.latex(row.formula + r"\;")
    st.caption(f"{escape_markdown(row.source)}. The function that computed it:")
    st.code(inspect.getsource(row.function), language="python", wrap_lines=True)


def _pick_objective(help: str) -> str:
    return st.selectbox(
        "Bound", list(OBJECTIVES), list(OBJECTIVES).index("iwae"), format_func=lambda name: OBJECTIVES[name].title,
        key="objective", bind="query-params", help=help,
    )  # fmt: skip


def training_step(view: View, drawn: Sequence[Posterior], k: int) -> None:
    """The draws of one training step by a bound, under both models."""
    one, two, three = st.columns(3)
    with one:
        name = _pick_objective("The step of this bound; the section of every bound shows its source.")
    with two:
        bound = Bound(name, _parameters(name, k))
    number = whole_number("Step", 1, drawn[0].samples // k, 1, key="step", help="Each takes the next k draws.",
                          place=three)  # fmt: skip
    st.write(f"{k} draws of this digit, weighed by {bound.title}: those with the most weight pull the model most.")
    for column, (slot, entry), part in zip(beside(), view.pair, drawn, strict=True):
        with column:
            image_rows.heading(slot, entry)
            one_step(slot, cache.model(entry, view.device), part, bound, k, number - 1)
    reading.formulas(
        "The formula",
        (
            r"\nabla \mathcal L = \sum_{i=1}^k \frac{\partial \mathcal L}{\partial \log w_i}\,\nabla \log w_i,\qquad"
            r"\text{for IWAE } \frac{\partial L_k}{\partial \log w_i} = \tilde w_i = \frac{w_i}{\sum_j w_j}"
        ),
        text=("Burda, Grosse & Salakhutdinov (2016), equations 13 and 14; for the VAE every draw has the weight 1/k."),
    )


def _pick_bounds(k: int) -> dict[str, Bound]:
    """Every objective with the parameters of the controls, by name."""
    asking = [name for name, row in OBJECTIVES.items() if row.parameters]
    given: dict[str, dict[str, float]] = {name: {} for name in OBJECTIVES}
    for column, name in zip(st.columns(len(asking)), asking, strict=True):
        with column:
            given[name] = _parameters(name, k)
    return {name: Bound(name, values) for name, values in given.items()}


def _parameters(objective: str, k: int) -> dict[str, float]:
    """The controls of one objective's parameters: a slider for each, or one choice of factors of k."""
    row = OBJECTIVES[objective]
    values: dict[str, float] = {}
    if row.factors:
        choices = {"×".join(map(str, factors.values())): factors for factors in factorings(k, row.factors)}
        symbols = "×".join(row.parameters[name].symbol for name in row.factors)
        labels = [row.parameters[name].label for name in row.factors]
        values |= choices[
            st.selectbox(
                f"{escape_markdown(row.title)}: {symbols}", list(choices), len(choices) // 2,
                key=f"{objective}.factors", bind="query-params", help=f"{'; '.join(labels)}. Their product is k.",
            )
        ]  # fmt: skip
    for name, parameter in row.parameters.items():
        if name not in values:
            low, high = map(float, parameter.usual)
            values[name] = st.slider(
                f"{escape_markdown(row.title)}: {parameter.symbol}", low, high, float(parameter.default), 0.05,
                key=f"{objective}.{name}", bind="query-params", help=parameter.help,
            )  # fmt: skip
    return {name: values[name] for name in row.parameters}


def all_bounds(view: View, drawn: Sequence[Posterior], bounds: dict[str, Bound], k: int) -> None:
    """Each bound of both models with its standard error: a chart and a table."""
    names = [bound.title for bound in bounds.values()]
    found = [[estimate(part, bound, k) for bound in bounds.values()] for part in drawn]
    marks, rows = [], ["| bound, nats | A | B |", "|---|---|---|"]
    for place, ((slot, entry), part, ours) in enumerate(zip(view.pair, drawn, found, strict=True)):
        hollow = place == 1 and view.a.kind == view.b.kind
        values, errors = [one.value for one in ours], [one.error for one in ours]
        marks.append(BoundEstimates(f"{slot} · {entry.short}", entry.kind, values, errors, part.log_p, hollow))
    rows += [
        f"| {escape_markdown(name)} | {nats(a.value, a.error)} | {nats(b.value, b.error)} |"
        for name, a, b in zip(names, *found, strict=True)
    ]
    ends = " | ".join(one_line(part) for part in drawn)
    rows.append(f"| log p̂(x), all {drawn[0].samples:,} draws | {ends} |")
    groups, seed = found[0][0].groups, drawn[0].seed
    caption = (
        f"Each bound of k = {k} draws, averaged over {groups:,} disjoint groups of the {drawn[0].samples:,} samples "
        f"(seed {seed}), ± standard error. Dotted: log p̂(x), by all samples together."
    )
    numbers = [
        {
            "bound": name,
            "model": slot,
            "nats": one.value,
            "± s.e.": one.error,
            "k": k,
            "groups": groups,
            "seed": drawn[0].seed,
        }
        for slot, ours in zip("AB", found, strict=True)
        for name, one in zip(names, ours, strict=True)
    ]
    highest = [
        max((one.value, bound.title) for one, bound in zip(ours, bounds.values(), strict=True) if bound.lower_bound)
        for ours in found
    ]
    takeaway = "Of the lower bounds, the highest is " + " and ".join(
        f"{escape_markdown(title)} under {slot} ({nats(value)} nats)"
        for slot, (value, title) in zip("AB", highest, strict=True)
    )
    left, right = beside()
    with left:
        figure(bounds_with_errors(names, marks), "bounds.all", caption, numbers, f"{takeaway}.")
    right.markdown("\n".join(rows))
    exceeding = [escape_markdown(bound.title) for bound in bounds.values() if not bound.lower_bound]
    others = f", except these, which may exceed it: {', '.join(exceeding)}" if exceeding else ""
    right.caption(f"In expectation all are lower bounds on log p(x){others}.")


def one_step(slot: str, model: Model, drawn: Posterior, bound: Bound, k: int, number: int) -> None:
    """The draws of one training step, those that pull most first, with what each weighs."""
    taken = step(drawn, bound, k, number)
    order = np.lexsort((-taken.log_w.numpy(), -taken.gradient.numpy()))  # by gradient, then by weight
    shown = torch.from_numpy(order[:SHOWN].copy())
    with torch.no_grad():
        decoded = model.decode(drawn.h[0][taken.draws[shown]].to(model.device)).cpu()
    says = [
        (nats(taken.log_w[draw].item()), percent(taken.normalised[draw].item()), percent(taken.gradient[draw].item()))
        for draw in shown.tolist()
    ]
    captions = [f"{log_w}  \nw̃ {weight}  \n**{gradient}**" for log_w, weight, gradient in says]
    alts = [f"draw with log w {says[0]}, weight {says[1]} and {says[2]} of the gradient" for says in says]
    image_rows.image_row(decoded.numpy(), captions, alts)
    rest = 1 - taken.gradient[shown].sum().item()
    others = f" The other {k - SHOWN} draws share {percent(max(rest, 0.0))}." if k > SHOWN else ""
    st.caption(
        f"Below each draw: log w in nats, its normalised weight w̃, and **its share of the "
        f"gradient**.{others} The bound of these {k} draws is "
        f"{nats(taken.bound)} nats; its gradient rests on {taken.effective:.1f} draws, 1/Σ share²."
    )
    table = {
        "draw": (taken.draws + 1)[order].tolist(),
        "log p(x|h), nats": drawn.log_px[taken.draws][order].tolist(),
        "log w, nats": taken.log_w[order].tolist(),
        "w̃": taken.normalised[order].tolist(),
        "share of the gradient": taken.gradient[order].tolist(),
    }
    data_table(table, f"bounds.step.{slot}")


def exact_posteriors(view: View, drawn: Sequence[Posterior]) -> None:
    """The exact posterior of each model that has a plane, beside q and its resampled draws."""
    st.write("With two latent units nothing has to be estimated: Bayes' rule on a grid of the plane.")
    planes = {}
    for (slot, entry), part in zip(view.pair, drawn, strict=True):
        image = cache.image_key(part.x)
        try:
            planes[slot] = _exact(*entry.identity, view.device, image, part.samples, part.seed, _drawn=part)
        except ValueError as error:
            st.info(f"Model {slot}: {escape_markdown(error)}. {CHOOSE_PLANE}")
            offer_plane(slot, entry, "bounds")
    if not planes:
        return
    windows = {slot: _window(found) for slot, found in planes.items()}
    if len(planes) == 2 and st.toggle("The same scale for A and B", key="scale", bind="query-params"):
        half = max(half for _, half in windows.values())
        windows = {slot: (centre, half) for slot, (centre, _) in windows.items()}
    for column, (slot, entry) in zip(beside(), view.pair, strict=True):
        if slot in planes:
            with column:
                image_rows.heading(slot, entry)
                _plane(slot, entry.kind, planes[slot], windows[slot])
    reading.formulas(
        "The formula",
        (
            r"p(h\,|\,x) = \frac{p(x, h)}{p(x)},\qquad "
            r"p(x) = \int p(x, h)\,dh \approx \sum_{\text{grid}} p(x, h)\,\Delta^2"
        ),
        text=(
            "SIR, sampling-importance-resampling, draws again from the draws of q with probabilities w̃. It turns "
            "q's draws into draws of the exact posterior, as far as q reached it: what q never visits stays unseen, "
            "and then log p̂(x), which comes from the same draws, lies below log p(x)."
        ),
    )


@st.cache_resource(max_entries=8, show_spinner="Computing the exact posterior …")
def _exact(path: str, written: int, device: str, image: bytes, samples: int, seed: int, _drawn: Posterior) -> Plane:
    return plane(cache.model_at(path, written, device), _drawn)  # the others only say which draw it is


def _window(found: Plane) -> tuple[np.ndarray, float]:
    """Centre and half width of the square that shows both the exact posterior and q."""
    mean, reach = found.drawn.mean.numpy(), radius(SHARES[-1]) * found.drawn.std.numpy()
    ends = np.array([[axis[0], axis[-1]] for axis in (found.first.numpy(), found.second.numpy())])
    low, high = np.minimum(ends[:, 0], mean - reach), np.maximum(ends[:, 1], mean + reach)
    return (low + high) / 2, float((high - low).max() / 2)


def _plane(slot: str, kind: str, found: Plane, window: tuple[np.ndarray, float]) -> None:
    drawn = found.drawn
    chosen, counts = drawn.resample(RESAMPLED, drawn.seed).unique(return_counts=True)
    regions = PosteriorRegions(
        found.first.numpy(), found.second.numpy(), found.regions.numpy(), drawn.mean.numpy(), drawn.std.numpy(),
        [radius(share) for share in SHARES], drawn.h[0][chosen].numpy(), counts.numpy(),
    )  # fmt: skip
    caption = (
        f"Shades: the smallest regions that hold 50%, 90% and 99%; grey: where 90% of the exact posterior lies. "
        f"log p(x) = {nats(found.log_p)} on the grid (coarseness: {found.error:.1g}), log p̂(x) "
        f"by {drawn.samples:,} draws: {one_line(drawn)}. {RESAMPLED:,} draws by weight are "
        f"{len(chosen):,} different ones."
    )
    lacking, error = found.log_p - drawn.log_p, drawn.log_p_se
    if lacking > found.error + (1.0 if error is None else 4 * error):
        caption += f" log p̂(x) is {lacking:.1f} nats too low: q's draws miss where the posterior is."
    second, first = np.meshgrid(found.second.numpy(), found.first.numpy(), indexing="ij")
    numbers = {
        "first unit": first.ravel(),
        "second unit": second.ravel(),
        "log p(h|x), nats": found.log_posterior.flatten().numpy(),
        "mass within": found.regions.flatten().numpy(),
    }
    takeaway = (
        f"q's 99% region holds {percent(found.inside())} of the exact posterior; D_KL(q‖p(h|x)) = {found.kl:.2f} nats."
    )
    figure(posterior_plane(regions, kind, window), f"bounds.plane.{slot}", caption, numbers, takeaway)
