return {now, 0}
