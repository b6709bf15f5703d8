"""Attribution of anyone's own model: what is asked, the problem made of it, cells run on it, and what people get."""
