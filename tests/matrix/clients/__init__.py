"""Client libraries, each behind a process that sends one upload per line which it reads."""
