"""What stands around every page: its heading, the links to the others, and the address that they share.

Of what the explorer imports it needs Streamlit alone, so that it can be shown while the rest is imported.
"""
