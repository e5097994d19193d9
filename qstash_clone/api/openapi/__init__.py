"""The description of the API in OpenAPI 3.1: one module per resource, joined by `document`."""
