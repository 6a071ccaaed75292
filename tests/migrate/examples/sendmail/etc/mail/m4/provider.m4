define(`confTO_INITIAL', `3m')dnl
