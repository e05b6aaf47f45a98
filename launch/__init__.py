if __name__ != "paceline.launch":
    raise ImportError("import paceline.launch: the bare folder would be a second copy with a second registry")
