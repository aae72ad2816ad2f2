"""Parts of a page that run by themselves, which Streamlit's server keeps for longer than what they drew is there.

The browser may just have asked for one. It would be drawn where nothing is any more, or take the visitor back to
a page that has been left; Streamlit's answer to both is an empty window.
"""

from streamlit.runtime.scriptrunner import get_script_run_ctx


def forget() -> None:
    """Drop those of earlier runs, while the whole page runs."""
    run = get_script_run_ctx()
    if run and not run.fragment_ids_this_run:
        run.fragment_storage.clear(run.shared.new_fragment_ids.snapshot())
