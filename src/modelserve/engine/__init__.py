"""Engine: the loaded model, admission control and inference; independent of every protocol."""
