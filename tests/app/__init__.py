"""What the tests of several pages do."""

from streamlit.testing.v1 import AppTest

from iwae.training.config import TrainConfig

TWO_LAYERS = TrainConfig("digits", "12:6/8:2", "iwae", k=5, epochs=5, valid_images=50, seed=1)
PLANE = TrainConfig("digits", "16:2", "iwae", k=2, epochs=1, valid_images=50)


def open_tables(test: AppTest, *keys: str) -> None:
    """Open the tables behind these figures, which are made only then."""
    names = [f"{key}.table" for key in keys]
    if not all(name in test.session_state and test.session_state[name] for name in names):
        for name in names:
            test.session_state[name] = True
        test.run()


def open_section(test: AppTest, title: str) -> None:
    """Open the section of this title, as a click on its tab does."""
    key = f"{test.session_state['title'].lower().replace(' ', '_')}_section"
    test.query_params[key] = test.session_state[key] = title
    test.run()
    assert not test.exception
