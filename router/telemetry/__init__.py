"""What the router says about itself: metrics and logs. Reads Outcomes; measures nothing itself."""
