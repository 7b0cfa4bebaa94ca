"""A Windows machine of packages alone: Wine, CPython for Windows, and our wheel.

`python -m tests.windows.machine` makes it in the folder that WINDOWS_MACHINE names, or
brings its wheel (TOX_PACKAGE) up to date: `tox -e wine` does. `wpy` in it is Python
for Windows; what goes in and out of it goes through pipes, as Wine knows no other way.

Nothing is downloaded but packages: Wine and MinGW are Debian's. The interpreter is that
of python.org, its own signed files, as panda3d's wheel carries them for programs that
are made with it; the standard library is this machine's own of the same version.
"""
