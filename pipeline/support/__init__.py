"""What every room needs and none owns: progress on the console, work done ahead in a thread, memory."""
