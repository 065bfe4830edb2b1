"""An address of an earlier version; the application sends its readers on before this is run."""
