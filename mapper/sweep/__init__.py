"""Sweeps: the cost of many points of a design space, resumable, on one machine or many.

    sweep file -> Sweep (file) -> Space, Table of points (space) -> Jobs (shards) -> Parquet bytes (evaluate) -> Store (store)

`run` drives this with local processes or Dask (`workers`). See docs/design/sweeps.md.
"""
