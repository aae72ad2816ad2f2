"""Data sets behind one ``load(name)``: how their files are found, downloaded, read, binarized and cached."""
