"""The cost model in closed form: a placed group as formulas in its tiles, extents and the numbers of its architecture.

    Nest --tiles--> numbers and sizes of tiles --> steps: cycles; words: what is fetched, read, made; room: what it takes
                                                             --> times: makespans, chains of dependences --> cost

In: a `Nest` that stands for all mappings of one structure (same loops longer than one iteration, same slots, places, bindings).
Out: the quantities of `mapper.cost` and `mapper.timing` as values on a tape. Equal to the model by test; what has no closed form
here (indices other than a rank, a split rank or `h // G`) is `Open`.
"""
