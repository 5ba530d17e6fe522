SELECT plproxy_way.add_one(:aid);
