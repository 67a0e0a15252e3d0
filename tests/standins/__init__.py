"""Stand-ins for libraries that cannot be installed here, with the signatures that their documentation gives.

A test puts this folder first on `sys.path` (the fixture `standins`), and `import safety_gymnasium` finds one. They show that an adapter
keeps the documented interface, and nothing about the library itself.
"""
