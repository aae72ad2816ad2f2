"""Training: settings, the loop, the engines that make a step fast, several processes, the sleep phase of wake-sleep."""
