"""Study, site and simulation files: YAML to frozen, validated models."""
