"""A volume under a cluster manager: whose content counts, and which node may be promoted without a person."""
