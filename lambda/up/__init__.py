"""`penstock up`: Triton, Dask, stream and page as processes of this machine, under one supervisor.

    commands ── supervisor ──┬── child (triton)   each a process of its own: `python -m penstock.up ORDER`,
                    │        ├── child (dask)     with a log of its own, a pipe on which it says how it is,
                 up.json     ├── child (stream)   and an eye on its parent
                    │        └── child (page)
            status, Parts

`restarts` is arithmetic, `part` one part under the supervisor, `processes` the supervisor's end of a child, `child` the
other end, `bodies` what the children do, `record` what others may know, `rows` what `status` makes of it, `screen` what
is shown meanwhile.
"""
