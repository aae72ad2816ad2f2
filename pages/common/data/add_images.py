"""Add your own images as a data set: a dialog with what the models will see; and remove one again."""

from collections.abc import Sequence

import numpy as np
import streamlit as st
import torch

from iwae.data import datasets, own, readers, upload
from iwae.data.arrays import ArrayError, Options, Splits, parse_size
from iwae.data.datasets import DataError, Dataset
from iwae.images import decoding
from iwae.runs import store
from iwae.runs.store import Run
from iwae.shapes import shape_text
from iwae.system import paths
from pages.common import image_rows
from pages.common.figure_card import escape_markdown
from pages.common.server.polling import set_in_dialog

AS_THEY_ARE = "as they are"
SIZES = (AS_THEY_ARE, "28×28", "16×16", "32×32", "64×64")
GREY, BINARIZED = "grey levels", "binarized once"
SHOWN, TILE = 20, 56  # images of the preview, and CSS pixels of each
LISTED = 12  # classes that are named
ALLOWED = (
    f"Several pictures ({', '.join(decoding.FORMATS)}), or one file: a .zip of pictures, in a folder for each class "
    f"where they have classes, .npy, .npz, .csv or .parquet. At most {upload.MAX_BYTES // 2**20} MB, "
    f"{upload.MAX_IMAGES:,} images, and {decoding.MAX_PIXELS:,} pixels in a picture."
)
READ = "images.read"  # in the session: what was read last, and by which files and options


def add_images_button(key: str) -> None:
    """A button that opens the dialog; nothing where nothing may be added."""
    st.session_state.pop(READ, None)  # of a dialog that was closed
    if not paths.read_only() and st.button(
        "Add images …", icon=":material/add_photo_alternate:", key=key, width="stretch"
    ):
        _dialog()


def picked(widget: str) -> str | None:
    """The name of a data set that was just added, once for each widget that should now show it."""
    return st.session_state.pop(f"{widget} added", None)


@st.dialog("Add images", width="large", on_dismiss="rerun")
def _dialog() -> None:
    set_in_dialog(True)
    # Every type is let in: the field would refuse a file by its name in a tooltip.
    files = st.file_uploader("Your images", accept_multiple_files=True, key="images.files")
    st.caption(ALLOWED)
    if not files:
        return
    one_file = len(files) == 1 and not files[0].name.lower().endswith(readers.PICTURES)
    usual = own.clean_name(files[0].name) if one_file else "images"
    one, two, three, four = st.columns([2, 2, 2, 1], vertical_alignment="bottom")
    name = one.text_input("Name", usual, max_chars=40, key=f"images.name.{usual}")
    size = two.selectbox(
        "Size", SIZES, key="images.size", accept_new_options=True,
        help="Rows × columns to bring pictures to, at most 64×64; others can be typed, such as 20x12. As large as "
        "fits, proportions kept, in the middle, around it 0. Pictures of several sizes need one.",
    )  # fmt: skip
    pixels = three.segmented_control(
        "Pixels", [GREY, BINARIZED], default=GREY, required=True, key="images.pixels",
        help="Grey levels are drawn as zeros and ones anew in every epoch, with the level as probability, or modelled "
        "as they are. Binarized once, a pixel is on from a share of white.",
    )  # fmt: skip
    invert = four.toggle("Invert", key="images.invert", help="For dark ink on white paper: ink should be bright.")
    threshold = None
    if pixels == BINARIZED:
        threshold = st.slider("On from this share of white", 0.05, 1.0, 0.5, 0.05, key="images.threshold")
    try:
        own.check_name(name)
        options = Options(None if size == AS_THEY_ARE else parse_size(size or ""), threshold, invert)
        made = _read(files, options)
    except ArrayError as error:
        st.error(f"{escape_markdown(error)}. Nothing was added.")
        return
    _preview(made, options)
    if st.button("Add", type="primary", icon=":material/add:", key="images.add"):
        try:
            added = datasets.add(Dataset.from_splits(made, options, name), most=upload.MAX_KEPT)
        except (ArrayError, OSError) as error:
            st.error(escape_markdown(error))
            return
        for widget in ("data", "train.dataset"):
            st.session_state[f"{widget} added"] = added
        st.rerun()


def _read(files: Sequence, options: Options) -> Splits:
    """What is in the files, which are read once for these options. Raises ArrayError."""
    asked = [file.file_id for file in files], options
    if st.session_state.get(READ, (None,))[0] != asked:
        try:
            with st.spinner("Reading …"):
                found = upload.read([(file.name, file.getvalue()) for file in files], options)
        except ArrayError as error:
            found = error
        st.session_state[READ] = asked, found
    found = st.session_state[READ][1]
    if isinstance(found, ArrayError):
        raise found
    return found


def _preview(made: Splits, options: Options) -> None:
    train, valid, test = made.sizes
    count, size = sum(made.sizes), shape_text(made.shape)
    splits = f"{train:,} to train, {valid:,} to validate, {test:,} to test"
    st.markdown(f"**{count:,} images of {size} pixels**: {splits}.")
    chosen = np.arange(min(SHOWN, train))
    captions = None
    if made.labels is not None:
        counts = np.bincount(made.labels, minlength=len(made.label_names))
        classes = [f"{name} ({count:,})" for name, count in zip(made.label_names, counts, strict=True)]
        more = f" and {len(classes) - LISTED:,} more" if len(classes) > LISTED else ""
        listed = escape_markdown(", ".join(classes[:LISTED]) + more)
        st.markdown(f"**{len(classes):,} class{'es' * (len(classes) != 1)}**: {listed}.")
        chosen = _of_each(made.labels[:train])
        captions = [escape_markdown(made.label_names[label]) for label in made.labels[chosen]]
    images = made.images.take(chosen)
    what = "Binarized once" if options.threshold else "Grey levels"
    st.caption(f"{what}, as they will be kept: {len(chosen)} of those to train.")
    alts = [f"image {number}" for number in range(1, len(chosen) + 1)]
    image_rows.image_row(_pictures(images / 255, made), captions, alts, TILE)
    if ((images > 0) & (images < 255)).any():
        st.caption("The same as most models will see them: pixels of zeros and ones, drawn anew in every epoch.")
        drawn = datasets.binarize(torch.from_numpy(images), torch.Generator().manual_seed(0))
        image_rows.image_row(_pictures(drawn.numpy(), made), None, [f"{alt}, drawn" for alt in alts], TILE)


def _pictures(images: np.ndarray, made: Splits) -> list[np.ndarray]:
    return list(images.reshape(-1, *made.shape))


def _of_each(labels: np.ndarray) -> np.ndarray:
    """Places of up to SHOWN images: as many of each class as there is room for, the classes one after the other."""
    kinds = np.unique(labels)[:SHOWN]
    each = max(1, SHOWN // len(kinds))
    return np.concatenate([np.flatnonzero(labels == kind)[:each] for kind in kinds])


def remove_images_button(name: str, alive: Sequence[Run]) -> None:
    """For a data set that was added: a button that asks, and removes it, unless a run of these needs it."""
    if not own.is_full_name(name) or paths.read_only():
        return
    with st.popover(f"Remove {datasets.label(name)} …", icon=":material/delete:", width="stretch"):
        st.write(
            f"**{escape_markdown(name)}** is deleted from this machine. Models that were trained on it stay, and will "
            "say that their images are absent. This cannot be undone."
        )
        if st.button("Remove it", key="images.remove"):
            if training := store.training_on(name, alive):
                st.error(escape_markdown(f"{training.name} is training on it: stop it first."))
                return
            try:
                datasets.remove(name)
            except (DataError, OSError) as error:
                st.error(escape_markdown(error))
            else:
                st.rerun()
