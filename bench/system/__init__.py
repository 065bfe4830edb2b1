"""Access to the machine: files, devices, time, memory and random numbers; independent of models."""
