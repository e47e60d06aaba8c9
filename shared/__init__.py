"""What coordinator and hospital must agree on."""
