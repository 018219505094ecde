raise RuntimeError("the settings are wrong")
