"""What is served is watched; when it decays, it is trained again, and only the gate lets the result out."""
