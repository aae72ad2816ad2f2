"""Training: settings, the loop, how a step is made, several processes, the sleep phase of wake-sleep."""
