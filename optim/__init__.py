if __name__ != "paceline.optim":
    raise ImportError("import paceline.optim: the bare folder would be a second copy with a second registry")
