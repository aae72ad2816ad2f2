"""What decides a training run: its settings, and the schedules that fill in what is not given."""

import math
from collections.abc import Callable
from dataclasses import dataclass, fields, make_dataclass, replace
from functools import cache
from numbers import Integral, Real
from types import NoneType
from typing import TYPE_CHECKING, Annotated, Any, Optional, TypeVar, get_args, get_type_hints

from typing_extensions import Doc

from iwae import checkpoints, likelihoods
from iwae.bounds import OBJECTIVES, Bound
from iwae.data import datasets
from iwae.gradients import GRADIENTS, Estimator
from iwae.kernels.precision import MATMUL_PRECISIONS
from iwae.model import ModelConfig
from iwae.system.files import printable

T = TypeVar("T")
if TYPE_CHECKING:
    Filled = Annotated[T, "given as None or left out: the default of the schedule"]
else:
    Filled = Optional
DEFAULT: Any = None  # of the schedule; __post_init__ puts a value in its place

MAX_K = 1_000_000  # draws: merely checking a configuration must not need more than 4 MB
MAX_EPOCHS = 1_000_000
MAX_SEED = 2**32 - 1  # seeds of single epochs are made from it, and must fit 64 bits
PAPER_STAGES = 8
PAPER_EPOCHS = (3**PAPER_STAGES - 1) // 2  # 3,280


def _paper(progress: float) -> float:
    """Stages i = 0…7 of 3ⁱ epochs at 10^(−i/7), in proportion if the run is shorter. Burda et al. 2016, section 5."""
    epochs = progress * PAPER_EPOCHS
    stage = int(math.log(2 * epochs + 1, 3) + 1e-9)
    return 10 ** (-min(stage, PAPER_STAGES - 1) / (PAPER_STAGES - 1))


def _cosine(progress: float) -> float:
    """From 1 down to 1% along half a cosine. Loshchilov & Hutter 2017."""
    return 0.01 + 0.99 * (1 + math.cos(math.pi * progress)) / 2


def _constant(progress: float) -> float:
    return 1.0


@dataclass(frozen=True)
class Schedule:
    """The learning rate, as a share of its largest value, over the run's progress in [0, 1); and further defaults."""

    function: Callable[[float], float]
    epochs: int = 50
    learning_rate: float = 1e-3
    adam_eps: float = 1e-8
    batch_size: int = 100
    cheap: bool = False  # the estimators that need the least time for the same quality (docs/performance.md)


SCHEDULES = {
    "fast": Schedule(_cosine, learning_rate=2e-3, cheap=True),
    "paper": Schedule(_paper, PAPER_EPOCHS, adam_eps=1e-4, batch_size=20),
    "cosine": Schedule(_cosine),
    "constant": Schedule(_constant, cheap=True),
}
WARM_K = 5  # draws at the beginning of a cheap run
FEW = 10  # draws up to which resampling costs more than it saves


def _parameter_fields() -> dict[str, Any]:
    """The type of every parameter of an objective or a gradient, by name, with what it means in each of them."""
    kinds: dict[str, type] = {}
    meanings: dict[str, dict[str, list[str]]] = {}  # of each parameter: labels, and who calls it so
    for title, row in (OBJECTIVES | GRADIENTS).items():
        for name, parameter in row.parameters.items():
            kinds[name] = int if parameter.whole else float
            meanings.setdefault(name, {}).setdefault(parameter.label, []).append(title)
    texts = {
        name: "; ".join(f"{label} ({', '.join(titles)})" for label, titles in labels.items())
        for name, labels in meanings.items()
    }
    return {name: Annotated[kind | None, Doc(texts[name])] for name, kind in kinds.items()}


PARAMETERS = _parameter_fields()

# The first fields of TrainConfig, in their order: its own, which it defines below, and after them the parameters of all
# objectives and gradients as their rows have them. Any, because a type checker cannot know these.
_FirstFields: Any = make_dataclass(
    "_FirstFields",
    [
        *((name, Any, None) for name in ("dataset", "model", "objective", "k", "warm_k", "warm_share")),
        *((name, kind, None) for name, kind in PARAMETERS.items()),
    ],
    frozen=True,
)


@dataclass(frozen=True)
class TrainConfig(_FirstFields):
    """Everything that decides a training run. Raises ValueError for values that do not go together.

    Every parameter of an objective or a gradient is a setting, too (``p``, ``alpha``, ``beta``, ``k1``, ``k2``).
    None means the default of the schedule, or that the objective does not take the parameter. Under
    ``fast`` and ``constant`` the gradient is dreg where the objective has one, one draw of k > 10 goes backward, and
    the run begins with 5 draws.
    """

    dataset: str = "mnist-5k"  # see `python -m iwae data list`
    # 1layer, 2layer, 2d, conv, or sizes such as 200,200:100/100,100:50, after channels of convolutions 16c,32c,100:50;
    # another likelihood than bernoulli and activation than tanh are added so: 1layer@gaussian@relu
    model: str = "1layer"
    objective: Annotated[str, Doc(f"the bound that is trained: {', '.join(OBJECTIVES)}")] = "iwae"
    k: int = 50  # draws from q(h|x) for each image
    warm_k: Filled[int] = DEFAULT  # draws at the beginning, fewer than k because they are cheaper; 0 for k throughout
    warm_share: float = 0.4  # of the epochs, with warm_k draws
    kl_warmup: int = 0  # epochs over which the weight of the KL term rises linearly from 0; 0 for none
    gradient: Filled[str] = DEFAULT  # exact, dreg, piwae, or stl, which for k > 1 is biased for all but vae and l-alpha
    resample: Filled[int] = DEFAULT  # draws that go backward, chosen by weight; 0 for all k
    precision: str = "float32"  # of matrix products: float32; bfloat16 on some CPUs; tf32 on CUDA; alias --products
    schedule: str = "fast"  # fast, cosine, paper or constant
    epochs: Filled[int] = DEFAULT  # over the training data; alias --passes
    minutes: float | None = None  # stop after so many minutes of training, wherever the schedule stands
    learning_rate: Filled[float] = DEFAULT  # the largest one of Adam
    adam_eps: Filled[float] = DEFAULT  # ε of Adam
    batch_size: Filled[int] = DEFAULT  # images per step
    weight_decay: float = 0.0  # of matrices, not of biases; decoupled, as in AdamW
    input_dropout: float = 0.0  # share of the pixels that the encoder does not see
    ema: float = 0.0  # decay of the averaged weights that are kept, at most (2 + s)/(11 + s) after s steps; 0 for none
    patience: int = 0  # stop after so many validations without a better bound, and keep the best; 0 for never
    validate_every: int = 1  # epochs between validations
    valid_images: int = 1000  # of the validation set, at most
    log_every: int = 100  # steps between records inside an epoch; on a GPU, whole epochs go without any
    start: str | None = None  # checkpoint whose weights to continue from, under this objective
    seed: int = 0  # of the weights, the order of the images, the binarization and the draws

    def __post_init__(self) -> None:
        for name, (kind, optional) in _kinds().items():
            if not (optional and getattr(self, name) is None):
                object.__setattr__(self, name, self._typed(name, kind))
        object.__setattr__(self, "dataset", datasets.resolve(self.dataset))
        if self.schedule not in SCHEDULES:
            raise ValueError(f"unknown schedule {self.schedule!r}; there are {', '.join(SCHEDULES)}")
        self._check("k", "must be a whole number of at least 1", lambda value: value >= 1)
        self._check("k", f"must not be above {MAX_K:,}", lambda value: value <= MAX_K)
        if (draws := self.bound().draws or 0) > MAX_K:
            raise ValueError(f"{self.bound().title}: draws must not be above {MAX_K:,}, not {draws:,}")
        if self.precision not in MATMUL_PRECISIONS:
            raise ValueError(f"unknown precision {self.precision!r}; there are {', '.join(MATMUL_PRECISIONS)}")
        self._fill_in()
        positive = ("epochs", "learning_rate", "adam_eps", "batch_size", "validate_every", "valid_images", "log_every")
        for name in positive:
            self._check(name, "must be above 0", lambda value: value > 0)
        self._check("epochs", f"must not be above {MAX_EPOCHS:,}", lambda value: value <= MAX_EPOCHS)
        for name in ("resample", "weight_decay", "patience", "seed"):
            self._check(name, "must not be below 0", lambda value: value >= 0)
        self._check("seed", f"must not be above {MAX_SEED:,}", lambda value: value <= MAX_SEED)
        for name in ("ema", "input_dropout"):
            self._check(name, "must lie in [0, 1)", lambda value: 0 <= value < 1)
        if self.minutes is not None:
            self._check("minutes", "must be above 0", lambda value: value > 0)
        self._check("warm_k", f"must lie between 0 and k = {self.k}", lambda value: 0 <= value <= self.k)
        self._check("warm_share", "must lie in [0, 1]", lambda value: 0 <= value <= 1)
        rule = f"must lie between 0 and the {self.epochs} epochs of the run"
        self._check("kl_warmup", rule, lambda value: 0 <= value <= self.epochs)
        likelihood = likelihoods.find(ModelConfig.parse(self.model).likelihood)
        if not (likelihood.binary or datasets.is_stochastic(self.dataset)):
            raise ValueError(f"{self.dataset} has pixels of zeros and ones, which need the likelihood bernoulli")
        self.estimator()
        self.estimator(self.warm_k)

    def _fill_in(self) -> None:
        """Replace None by the schedule's defaults."""
        schedule, bound = SCHEDULES[self.schedule], self.bound()
        many = schedule.cheap and self.k > FEW
        gradient = self.gradient or ("dreg" if schedule.cheap and bound.smooth else "exact")
        groups = gradient in GRADIENTS and GRADIENTS[gradient].parameters  # whose number follows from k
        defaults = {
            **{name: getattr(schedule, name) for name in ("epochs", "learning_rate", "adam_eps", "batch_size")},
            "gradient": gradient,
            # nothing is gained where all draws weigh the same, and a gradient of groups cannot be resampled
            "resample": int(many and not bound.equal_weights and not groups),
            "warm_k": WARM_K if many and bound.draws is None and not groups else 0,
        }
        for name, value in defaults.items():
            if getattr(self, name) is None:
                object.__setattr__(self, name, value)

    def _typed(self, name: str, kind: type) -> Any:
        """The value as its plain type: 2.5 is not a number of epochs, and True is not a number of draws."""
        value = getattr(self, name)
        accepted, words = {int: (Integral, "a whole number"), float: (Real, "a number")}.get(kind, (kind, "a text"))
        if not isinstance(value, accepted) or isinstance(value, bool):
            raise ValueError(f"{name.replace('_', ' ')} must be {words}, not {value!r}")
        return kind(value)

    def _check(self, name: str, rule: str, holds: Callable[[float], bool]) -> None:
        value = getattr(self, name)
        if not (isinstance(value, int | float) and abs(value) < math.inf and holds(value)):
            raise ValueError(f"{name.replace('_', ' ')} {rule}, not {value}")

    @property
    def model_config(self) -> ModelConfig:
        """The model: its layers as ``model`` says, for images of the data set's shape."""
        return replace(ModelConfig.parse(self.model), shape=datasets.shape(self.dataset))

    @property
    def kind(self) -> str:
        """``vae`` for objectives that weigh all draws alike, such as the ELBO; ``iwae`` for the others."""
        return "vae" if self.bound().equal_weights else "iwae"

    @property
    def regularisation(self) -> list[str]:
        """What was used against overfitting, in words."""
        used = {
            "weight_decay": f"weight decay {self.weight_decay:g}",
            "input_dropout": f"input dropout {self.input_dropout:g}",
            "ema": f"EMA {self.ema:g}",
            "patience": f"early stopping ({self.patience})",
        }
        return [text for name, text in used.items() if getattr(self, name)]

    @property
    def factors(self) -> dict[str, int]:
        """The parameters whose product is k, of the objective or the gradient; none where k stands alone."""
        bound, gradient = self._parameters()
        return {name: int(bound[name]) for name in OBJECTIVES[self.objective].factors} | gradient

    def bound(self) -> Bound:
        """The objective with its parameters; those that neither it nor the gradient takes are a ValueError."""
        return Bound(self.objective, self._parameters()[0])

    def estimator(self, k: int = 0) -> Estimator:
        """The checked combination of objective and gradient.

        ``k`` draws instead of the run's own are for the warm beginning, where nothing is resampled.
        """
        return Estimator(self.bound(), k or self.k, self.gradient, self._parameters()[1], 0 if k else self.resample)

    def _parameters(self) -> tuple[dict[str, float], dict[str, int]]:
        """Parameters of the objective and of the gradient."""
        given = {name: getattr(self, name) for name in PARAMETERS}
        given = {name: value for name, value in given.items() if value is not None}
        takes = GRADIENTS[self.gradient].parameters if self.gradient in GRADIENTS else ()
        return given, {name: given.pop(name) for name in takes if name in given}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "TrainConfig":
        """From JSON, in which ``passes`` and ``products`` are the old names of ``epochs`` and ``precision``.

        Raises ValueError for names that this version does not know, and for values of another type.
        """
        values = checkpoints.current_names(values)
        known = {field.name for field in fields(cls)}
        if unknown := sorted(set(values) - known):
            raise ValueError(f"unknown settings: {printable(', '.join(unknown), 200)}")
        return cls(**values)


@cache
def _kinds() -> dict[str, tuple[type, bool]]:
    """The type of every setting, and whether it may be None."""
    hints = get_type_hints(TrainConfig).items()
    return {name: ((get_args(hint) or (hint,))[0], NoneType in get_args(hint)) for name, hint in hints}
