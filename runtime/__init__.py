if __name__ != "paceline.runtime":
    raise ImportError("import paceline.runtime instead of runtime: the bare folder would be a second copy with a second registry")
