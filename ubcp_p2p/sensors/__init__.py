"""What this machine can be asked: battery, heat, power, who uses it. Each answer is a value, or why there is none."""
