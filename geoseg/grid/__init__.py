"""Where pixels are: values without arrays and files."""
