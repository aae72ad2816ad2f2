"""Training from the sidebar: the form, the pair of models at a click, the runs that are going on."""
