"""The machine: files, processors, time, memory, random numbers; nothing about models."""
