"""The address as the view: links bring along what every page shares, and the browser's history has one step a page.

A page that had to write what is shared into its own address would begin with another view than the link promised. What
changes on a page replaces its address, where Streamlit would add a step for every click: so Back leads to the page
before, as it was left. The same script closes the sidebar of a phone when a page is chosen in it, and opens it where
the page leads to something there.
"""

import time
from uuid import uuid4

import streamlit as st

SETTLING = 1.0  # seconds after a change for which a link to another page may still be the one from before it
SAID = 20  # addresses of a page that are remembered
_one_step_a_page = st.components.v2.component(
    "one_step_a_page",
    js="""
    const WIDE = 768 // CSS pixels; Streamlit lays the sidebar over what is narrower
    const SLIDING = 500 // milliseconds that the sidebar takes to open
    const push = History.prototype.pushState
    let leaving = false, left = false // a link was followed; its query stands in a step of its own, on the old page
    addEventListener('click', event => {
      const link = event.target.closest?.('a[data-testid^=stPageLink]')
      leaving = Boolean(link) && new URL(link.href).pathname !== location.pathname
      const sidebar = link?.closest('[data-testid=stSidebar]')
      if (leaving && innerWidth < WIDE) // on a phone the sidebar lies over the page that was chosen in it
        setTimeout(() => sidebar?.querySelector('[data-testid=stSidebarCollapseButton] button')?.click())
    }, true)
    const reveal = ({ key, token }) => { // opens the sidebar, which may be collapsed, and shows a part of it
      if (document.body.dataset.revealed === token) return // this file may be loaded again for every page
      document.body.dataset.revealed = token
      const sidebar = document.querySelector('[data-testid=stSidebar]')
      if (sidebar?.dataset.collapsed === 'true')
        document.querySelector('[data-testid=stExpandSidebarButton]')?.click()
      setTimeout(() => {
        const part = document.querySelector(`.st-key-${key}`), summary = part?.querySelector('summary')
        summary?.focus({ preventScroll: true })
        ;(summary ?? part)?.scrollIntoView({ block: 'start', behavior: 'smooth' })
      }, SLIDING)
    }
    export default function ({ data }) {
      if (data) reveal(data)
      history.pushState = (state, title, url) => {
        const same = new URL(url ?? location.href, location.href).pathname === location.pathname
        const replaces = same ? !leaving : left
        replaces ? history.replaceState(state, title, url) : push.call(history, state, title, url)
        left = same && (leaving || left)
        leaving = false
      }
    }
    """,
)


def one_step_a_page() -> None:
    """Let changes on a page replace its address, and show what ``reveal`` asked for. Call it once on every page."""
    _one_step_a_page(key="one step a page", height=0, data=st.session_state.get("reveal"))


def reveal(key: str) -> None:
    """Let the browser open the sidebar, if it is closed, and scroll to the expander or container ``key`` in it, once.
    Call it before ``one_step_a_page``."""
    st.session_state["reveal"] = {"key": key, "token": uuid4().hex}


def changed(name: str) -> None:
    """Note that the visitor has changed what the address says of ``name``."""
    st.session_state[f"{name}.changed"] = time.monotonic()


def asked(name: str, values: dict[str, str]) -> bool:
    """Whether the visitor has opened or gone back to an address that says something else of ``name`` than ``wrote``
    did; ``values``: what it says now.

    What this page said before, the browser may still send; to go back to it there is no step.
    """
    if values == st.session_state.get(f"{name}.address", {}):
        return False
    page, said = st.session_state.get(f"{name}.said", ("", []))
    if page == st.session_state.get("title"):
        return values not in said
    return time.monotonic() - st.session_state.get(f"{name}.changed", float("-inf")) > SETTLING


def wrote(name: str, values: dict[str, str], keys: tuple[str, ...]) -> None:
    """Write ``values`` into the address, and nothing else of these ``keys``."""
    for key in keys:
        if key not in values:
            st.query_params.pop(key, None)
        elif st.query_params.get(key) != values[key]:
            st.query_params[key] = values[key]
    st.session_state[f"{name}.address"] = values
    here = st.session_state.get("title")
    page, said = st.session_state.get(f"{name}.said", ("", []))
    st.session_state[f"{name}.said"] = here, [*(said if page == here else []), values][-SAID:]


def kept(digit: dict[str, str] | None = None) -> dict[str, str]:
    """What a link to another page says of models, data set and digit (by default the one in hand): all of it, as an
    address that is silent stands for what is shown first. Call it below the sidebar's choices."""
    shared = {key: st.session_state[key] for key in ("a", "b", "data") if key in st.session_state}
    shared |= {"simple": "true"} if st.query_params.get("simple") else {}
    in_hand = {key: st.query_params[key] for key in ("x", "image") if key in st.query_params}
    return shared | (digit or in_hand or {"image": "0"})


def page_link(file: str, label: str, icon: str, **query: str) -> None:
    """A link to a page; ``icon`` is the name of a Material icon, ``query`` what the address there says besides, or
    instead: models ``a`` and ``b`` bring their own data set along."""
    shared = {key: value for key, value in kept().items() if key != "data" or "a" not in query}
    st.page_link(file, label=label, icon=f":material/{icon}:", query_params=shared | query)
