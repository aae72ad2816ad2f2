"""What the tests of several pages do."""

from streamlit.testing.v1 import AppTest


def open_tables(test: AppTest, *keys: str) -> None:
    """Open the tables behind these figures, which are made only then."""
    names = [f"{key}.table" for key in keys]
    if not all(name in test.session_state and test.session_state[name] for name in names):
        for name in names:
            test.session_state[name] = True
        test.run()
