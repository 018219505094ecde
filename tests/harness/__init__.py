"""What the tests on real servers share: the apps, the servers, the scenarios and the verdicts."""
