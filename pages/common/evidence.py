"""log p(x) of one digit: at once from the draws of q, and seconds later by annealing, with an error that holds."""

from collections.abc import Hashable

import streamlit as st
from torch import Tensor

from iwae.inference import ais
from iwae.inference.ais import Annealed
from iwae.inference.posterior import Posterior
from iwae.model import Model
from iwae.system import cores
from pages.common import figure_card, image_rows, reading, surprise
from pages.common.number_field import in_use
from pages.common.server import cache
from pages.common.server.jobs import Job, Jobs, Progress, Work
from pages.common.server.polling import poll
from pages.common.sidebar import View

POLL = 0.5  # seconds
MISSED = 3.0  # nats by which draws of q exceed the chains, with a probability of at most e^−3 where these miss nothing
MORE = 4  # times as many chains then
SAMPLES, SEED = 5000, 0  # of the draws of q, until another page is asked for others
SHOWN = 10  # ends of chains as pictures


def draws_in_use() -> tuple[int, int]:
    """(samples, seed) of the draws of q, as they were last asked for, on whichever page."""
    return in_use("samples", SAMPLES), in_use("seed", SEED)


@st.cache_resource(show_spinner=False)
def jobs() -> Jobs:
    """The queue of this server. A core is left to the pages, and two jobs at once already share Python's lock."""
    return Jobs(min(2, max(1, cores.count() - 1)))


def nats(value: float, error: float | None = None) -> str:
    """``−87.32 ± 0.05``, in one line."""
    return reading.plus_minus(value, error).replace(" ", "\u00a0")


def from_draws(drawn: Posterior) -> tuple[str, str]:
    """log p̂(x) of draws from q, and what it rests on: an error where k̂ says that it holds, else a bound in words."""
    if drawn.log_p_se is not None:
        return nats(drawn.log_p), "" if reading.simple() else f"± {drawn.log_p_se:.2f} standard error"
    return f"≥\u00a0{nats(drawn.log_p)}", f"at least; {_decide(drawn)}"


def one_line(drawn: Posterior) -> str:
    """``−87.32 ± 0.05``, or ``at least −87.32 (5 draws decide)``."""
    if drawn.log_p_se is not None:
        return nats(drawn.log_p, drawn.log_p_se)
    return f"at least\u00a0{nats(drawn.log_p)} ({_decide(drawn)})"


def _decide(drawn: Posterior) -> str:
    count = drawn.carrying(0.9)
    return "1 draw decides" if count == 1 else f"{count:,} draws decide"


def missed_a_mode(found: Annealed, drawn: Posterior) -> bool:
    """Whether the chains, a lower bound like the draws of q, lie so far below these that they must miss a mode."""
    return drawn.log_p > found.log_p.item() + MISSED


def from_chains(found: Annealed, drawn: Posterior) -> tuple[str, str]:
    """log p̂(x) by annealing, and its interval; of two lower bounds the larger one, if they are nats apart."""
    if missed_a_mode(found, drawn):
        return f"≥\u00a0{nats(drawn.log_p)}", f"at least; annealing missed a mode ({nats(found.log_p.item())})"
    if not found.shown:
        return f"≥\u00a0{nats(found.log_p.item())}", f"at least; the chains scatter by {found.scatter.item():.1f} nats"
    low, high = (end.item() for end in found.interval(0.95))
    return nats(found.log_p.item()), f"95%: {nats(low)} to {nats(high)}"


def of_q_alone(found: Annealed, drawn: Posterior) -> str:
    """What the draws of q say, beside the chains; both bounds are random, and few draws may exceed log p(x) by luck."""
    text = f"{drawn.samples:,} draws of q alone: {one_line(drawn)}."
    if found.interval(0.95)[1].item() < drawn.log_p and not missed_a_mode(found, drawn):
        text += " Few draws decide there, and may lie too high by luck."
    return text


def comparison(a: Annealed, b: Annealed, missed: bool = False) -> str:
    """B minus A in words; a difference within the 95% intervals of both is too close to call."""
    if missed or not (a.shown and b.shown):
        return "**B − A**: not both values have an error that holds, so this digit does not compare the models."
    difference = nats(abs(b.log_p.item() - a.log_p.item()))
    (low_a, high_a), (low_b, high_b) = ([end.item() for end in one.interval(0.95)] for one in (a, b))
    if low_a <= high_b and low_b <= high_a:
        return f"**Too close to call**: log p̂(x) differs by {difference} nats, within the 95% intervals of both models."
    better = "B" if b.log_p > a.log_p else "A"
    return f"**{better} finds this digit more probable**, by {difference} nats; the 95% intervals do not overlap."


class Evidence:
    """Both models' chains for one image x [784], computed in the background while a visitor looks at the page."""

    def __init__(self, view: View, x: Tensor, samples: int, seed: int):
        """``samples`` draws from q in the meantime."""
        self.view, self.x, self.seed = view, x, seed
        image = cache.image_key(x)
        found = {name: cache.posterior(entry, view.device, x, samples, seed) for name, entry in view.pair}
        self.drawn = {name: drawn for name, (drawn, _) in found.items()}
        self.pictured = {name: pictured for name, (_, pictured) in found.items()}
        self.keys: dict[str, Hashable] = {}
        self.works = {}
        for name, entry in view.pair:
            key = self.keys[name] = *entry.identity, view.device, image
            self.works[key] = _work(cache.model(entry, view.device), x, self.drawn[name])
        self.visitor = st.session_state.setdefault("visitor", object())
        self.finished = all(job.finished for job in self.poll().values())

    def poll(self) -> dict[str, Job]:
        """The jobs of A and B; without it for a while, they end."""
        found = dict(zip(self.works, jobs().request(self.visitor, self.works), strict=True))
        return {name: found[key] for name, key in self.keys.items()}

    def headline(self, name: str) -> None:
        """The numbers of one model in figures and words; the page runs again when both models' chains are there."""
        self._metric_polled(name)
        image_rows.weight_concentration(self.drawn[name])
        surprise.caption(dict(self.view.pair)[name], self.drawn[name])

    def _metric_polled(self, name: str) -> None:
        poll(
            lambda: self._metric(self.poll()[name], self.drawn[name]),
            lambda: name == "A" and all(job.finished for job in self.poll().values()),
            None if self.finished else POLL,
        )

    def _metric(self, job: Job, drawn: Posterior) -> None:
        value, rests_on = from_draws(drawn) if job.result is None else from_chains(job.result, drawn)
        with st.container(horizontal=True):  # one below the other where there is no room
            st.metric(
                "log p̂(x), nats", value, rests_on, delta_color="off", delta_arrow="off", width="content",
                help="How probable the model finds this digit. First the logarithm of the mean importance weight of "
                "draws from q: an estimate with a standard error where Pareto k̂ is at most 0.5, and else no more than "
                "a lower bound. Then by annealed importance sampling: chains that walk from q to the true posterior, "
                "whose weights scatter so little that their interval holds.",
            )  # fmt: skip
            image_rows.effective_samples_metric(drawn)
        if job.error is not None:
            st.warning(figure_card.escape_markdown(f"Annealing failed: {job.error}"))
        elif job.result is None:
            others = f"Annealing waits for {job.ahead} other job{'s' if job.ahead > 1 else ''}"
            st.progress(job.share, others if job.ahead else "Annealing, for a reliable error")
        else:
            st.caption(of_q_alone(job.result, drawn))

    def chains(self) -> dict[str, Annealed]:
        """The chains that have ended, by the model's name; until all have, the page shows how far they are, and runs
        again then."""
        poll(self._progress, lambda: all(job.finished for job in self.poll().values()), None if self.finished else POLL)
        return {name: job.result for name, job in self.poll().items() if job.result is not None}

    def _progress(self) -> None:
        for name, job in self.poll().items():
            if job.error is not None:
                st.warning(figure_card.escape_markdown(f"Annealing under {name} failed: {job.error}"))
            elif job.result is None:
                st.progress(job.share, f"Annealing under {name}, for draws from its true posterior")

    def end_states(self, name: str, model: Model) -> None:
        """Decoded states in which the chains ended, drawn by weight."""
        found: Annealed | None = self.poll()[name].result
        if found is None:
            return
        st.markdown(
            "**Where the annealed chains ended**",
            help="Draws from the true posterior, as far as the chains reached it: each began with a draw from q and "
            f"took {found.temperatures:,} Hamiltonian steps. Drawn by weight.",
        )
        decoded = model.decode(found.draws(SHOWN)[0][:, 0].to(model.device)).detach().cpu().numpy()
        alt = f"{len(decoded)} draws from the true posterior"
        image_rows.image_strip(decoded, image_rows.STRIP, f"{alt}, by weight.".capitalize(), alt)

    def verdict(self) -> None:
        """Which model finds the digit more probable, in words, once both chains are there."""
        a, b = (job.result for job in self.poll().values())
        if a is not None and b is not None:
            st.markdown(
                comparison(a, b, any(missed_a_mode(found, self.drawn[name]) for name, found in (("A", a), ("B", b))))
            )

    def numbers(self) -> None:
        """All of it as a table, once it is there."""
        rows = []
        for name, job in self.poll().items():
            if job.result is not None:
                found, drawn = job.result, self.drawn[name]
                low, high = (end.item() for end in found.interval(0.95))
                rows.append({
                    "model": name, "log p̂, annealed": found.log_p.item(),
                    "95% from": low if found.shown else None, "95% to": high if found.shown else None,
                    "chains": found.chains, "effective chains": found.ess.item(), "temperatures": found.temperatures,
                    "scatter of log w": found.scatter.item(), "accepted": found.acceptance.item(), "seed": found.seed,
                    "log p̂, draws of q": drawn.log_p, "± s.e.": drawn.log_p_se, "draws": drawn.samples,
                    "k̂": drawn.k_hat,
                })  # fmt: skip
        if rows:
            figure_card.data_table(rows, "evidence", "log p̂(x) in numbers (nats)")


def _work(model: Model, x: Tensor, drawn: Posterior) -> Work:
    x = x.unsqueeze(0).to(model.device)

    def work(progress: Progress) -> Annealed:
        found = ais.anneal(model, x, progress=progress)
        if missed_a_mode(found, drawn):
            more = ais.anneal(model, x, chains=MORE * ais.CHAINS, seed=1, progress=progress)
            found = max(found, more, key=lambda one: one.log_p.item())
        return found

    return work
