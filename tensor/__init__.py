if __name__ != "paceline.tensor":
    raise ImportError("import paceline.tensor instead of tensor: the bare folder would be a second copy with a second registry")
