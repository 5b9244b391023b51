"""The services: one module each, named by the wire's `service_type`; none knows another."""
