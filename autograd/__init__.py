if __name__ != "paceline.autograd":
    raise ImportError("import paceline.autograd instead of autograd: the bare folder would be a second copy with a second registry")
