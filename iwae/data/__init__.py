"""Data sets behind one ``load(name)``: files found, downloaded, read, binarized and cached; and your own images."""
