"""The pure meaning of the entries: what each says, what it changes, and how that state travels.

Floor 2. Imports floors 0 and 1 only; never `consensus`, and nothing that reads a clock, a file, a socket or chance.
"""
