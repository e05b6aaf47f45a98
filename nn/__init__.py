if __name__ != "paceline.nn":
    raise ImportError("import paceline.nn: the bare folder would be a second copy with a second registry")
