"""Add your own model from a file."""

import streamlit as st

from iwae import catalog
from iwae.checkpoints import CheckpointError
from pages.common.figure_card import escape_markdown
from pages.common.models.model_picker import pick


def add_model() -> None:
    """The form, for the sidebar; a model that is added becomes B."""
    with (
        st.expander("Add a model from a file", icon=":material/upload_file:"),
        st.form("model.add", clear_on_submit=True, border=False),
    ):
        file = st.file_uploader(
            f"A checkpoint of this program, {catalog.MAX_BYTES // 2**20} MB at most",
            ["safetensors"],
            help="Such as the checkpoint.safetensors of a training run. It is read as numbers, never executed, and "
            f"kept in {catalog.models_dir()}, for all who use this server.",
        )
        if not st.form_submit_button("Add as model B", icon=":material/add:", width="stretch"):
            return
        if file is None:
            st.info("Choose a file first.")
            return
        try:
            key = catalog.add(file.getvalue(), file.name)
        except (CheckpointError, OSError) as error:
            st.error(escape_markdown(error))
        else:
            pick(b=key)
            st.rerun()
