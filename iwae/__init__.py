import getpass as _getpass
import os as _os

try:
    _getpass.getuser()
except (KeyError, OSError, ImportError):  # a user id without an account, as in some containers
    _os.environ["LOGNAME"] = "iwae"  # torch names a folder after the user, and would fail to train
