"""The page an operator watches, and the JSON it polls. Reads what others keep; measures nothing."""
